use std::io::Cursor;

use ogg::PacketReader;

use super::*;

/// A WAV file of one second of silence and one of a tone, each as loud as the other channels.
fn wav(rate: u32, channels: u16) -> Vec<u8> {
    let tone = (0..2 * rate).map(|n| match n < rate {
        true => 0,
        false => ((f64::from(n) * 440.0 * std::f64::consts::TAU / f64::from(rate)).sin() * 16_000.0) as i16,
    });
    let data: Vec<u8> =
        tone.flat_map(|sample| std::iter::repeat_n(sample.to_le_bytes(), channels.into())).flatten().collect();
    let (size, length, frame) =
        ((data.len() as u32 + 36).to_le_bytes(), (data.len() as u32).to_le_bytes(), channels * 2);
    let second = (rate * u32::from(frame)).to_le_bytes();
    [
        b"RIFF",
        &size[..],
        b"WAVEfmt \x10\0\0\0\x01\0",
        &channels.to_le_bytes(),
        &rate.to_le_bytes(),
        &second,
        &frame.to_le_bytes(),
        b"\x10\0data",
        &length,
        &data,
    ]
    .concat()
}

fn converted(recording: Vec<u8>) -> Result<(Note, Vec<u8>), Refused> {
    let (mut made, size) = (Vec::new(), recording.len() as u64);
    let note = convert(Cursor::new(recording), size, Some(&mut made))?;
    Ok((note, made))
}

/// What is heard of a voice note, and where its last page says that it ends.
fn played(ogg: &[u8]) -> (Vec<f32>, u64) {
    let (mut reader, mut decoder) = (PacketReader::new(Cursor::new(ogg)), Decoder::new(RATE, Channels::Mono).unwrap());
    let (mut heard, mut room, mut end) = (Vec::new(), vec![0.0; MAX_PACKET as usize], 0);
    let head = Head::read(&reader.read_packet_expected().unwrap().data).unwrap();
    assert!(reader.read_packet_expected().unwrap().data.starts_with(b"OpusTags"));
    while let Some(packet) = reader.read_packet().unwrap() {
        let count = decoder.decode_float(&packet.data, &mut room, DecodeMode::Normal).unwrap();
        heard.extend_from_slice(&room[..count]);
        end = packet.absgp_page();
    }
    heard.truncate(end as usize);
    (heard.split_off(head.skip.into()), end)
}

#[test]
fn a_recording_of_any_rate_is_the_same_note() {
    for (rate, channels) in [(8_000, 1), (16_000, 1), (22_050, 2), (44_100, 2), (48_000, 1), (96_000, 2)] {
        let (note, ogg) = converted(wav(rate, channels)).unwrap();
        assert_eq!((note.seconds, note.waveform.len()), (2, 64), "{rate}");
        assert!(note.waveform[..31].iter().all(|bar| *bar < 3), "{rate}: {:?}", note.waveform);
        assert!(note.waveform[33..].iter().all(|bar| *bar > 90), "{rate}: {:?}", note.waveform);
        assert_eq!(ogg[..4], *b"OggS");
        assert_eq!((&ogg[28..36], ogg[37]), (&b"OpusHead"[..], 1));
        let (heard, end) = played(&ogg);
        assert_eq!((heard.len(), end), (96_000, 96_312), "{rate}: as long as what came");
        // The tone begins where it began, within 5 ms, and is as loud and as high as it was.
        let begins = heard.iter().position(|sample| sample.abs() > 0.1).unwrap();
        assert!(begins.abs_diff(48_000) < 240, "{rate}: {begins}");
        let tone = &heard[52_800..91_200];
        let loud = (tone.iter().map(|sample| sample * sample).sum::<f32>() / tone.len() as f32).sqrt();
        assert!((0.28..0.42).contains(&loud), "{rate}: {loud}");
        let waves = tone.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count();
        assert!(waves.abs_diff(352) < 4, "{rate}: {waves} waves");
    }
}

#[test]
fn opus_is_packed_anew_and_its_packets_stay_as_they_are() {
    let packets = |ogg: &[u8]| {
        let mut reader = PacketReader::new(Cursor::new(ogg.to_vec()));
        std::iter::from_fn(move || reader.read_packet().unwrap()).map(|packet| packet.data).collect::<Vec<_>>()
    };
    let (first, ogg) = converted(wav(48_000, 1)).unwrap();
    let (again, anew) = converted(ogg.clone()).unwrap();
    assert_eq!((again.seconds, packets(&anew)), (first.seconds, packets(&ogg)));
    assert_eq!(played(&anew).1, played(&ogg).1, "it ends where it ended");
    // It is listened to behind the codec, which blurs where the tone begins and ends.
    let differences = first.waveform.iter().zip(&again.waveform).filter(|(one, other)| one.abs_diff(**other) > 8);
    assert!(differences.count() <= 3, "{:?} {:?}", first.waveform, again.waveform);
    let size = ogg.len() as u64;
    assert_eq!(convert(Cursor::new(ogg), size, None::<Vec<u8>>), Ok(again), "it can be listened to only");
}

#[test]
fn what_is_no_recording_is_refused() {
    for bytes in [&b""[..], b"plain text", b"RIFF\x24\0\0\0WAVEfmt ", b"OggS", &[0xff; 5_000]] {
        assert_eq!(converted(bytes.to_vec()).map(|(note, _)| note), Err(Refused::Unreadable));
    }
}

#[test]
fn a_recording_may_play_for_half_an_hour() {
    // One byte for each of 4,000 samples of a second.
    let long = |seconds: u32| {
        let length = seconds * 4_000;
        let head = [b"RIFF", &(length + 36).to_le_bytes()[..], b"WAVEfmt \x10\0\0\0\x01\0\x01\0"].concat();
        let rates = [4_000_u32.to_le_bytes(), 4_000_u32.to_le_bytes()].concat();
        [&head[..], &rates, b"\x01\0\x08\0data", &length.to_le_bytes(), &vec![128; length as usize]].concat()
    };
    let (within, beyond) = (long(1_800), long(1_801));
    let size = beyond.len() as u64;
    let note = convert(Cursor::new(within), size - 4_000, None::<Vec<u8>>).unwrap();
    assert_eq!((note.seconds, note.waveform), (1_800, vec![0; 64]));
    assert_eq!(convert(Cursor::new(beyond), size, None::<Vec<u8>>), Err(Refused::TooLong));
}
