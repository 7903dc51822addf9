//! Voice notes: whatever a browser or a phone has recorded, the other side gets what every phone plays.

use axum::http::StatusCode as Status;
use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    ffmpeg::{self, SPEECH},
    harness::{BRUNO, World, eventually},
    media::{Form, files, paired, send_form},
};

/// Sends a recording as a voice note, and returns what the phone shows and what it got.
async fn sent(world: &World, recording: &[u8], mimetype: Option<&str>) -> (Value, Vec<u8>) {
    let fields: Vec<_> = mimetype.iter().map(|mimetype| ("mimetype", *mimetype)).chain([("voice", "true")]).collect();
    let (status, sent) = send_form(&world.service, &fields, "recording", recording.to_vec()).await;
    assert_eq!(status, 200, "{mimetype:?}: {sent}");
    world.until_file(BRUNO, &sent["id"]).await
}

/// That this is what every phone plays, and how long it is by the measure of somebody else.
fn assert_plays(note: &[u8], seconds: f64) {
    let said = ffmpeg::about(note, "ffprobe -v error -show_entries stream=codec_name,channels,sample_rate -of csv in");
    assert_eq!(said.trim(), "stream,opus,48000,1");
    let decoded = ffmpeg::about(note, "ffmpeg -v error -i in -ar 48000 -ac 1 -f s16le out.pcm && stat -c %s out.pcm");
    let decoded = decoded.trim().parse::<f64>().unwrap() / 2.0 / 48_000.0;
    assert!((decoded - seconds).abs() < 0.1, "{decoded} s");
    let pages = ffmpeg::about(note, "grep -abo OggS in | wc -l");
    assert!(pages.trim().parse::<u32>().unwrap() >= 3, "{pages}");
}

/// That a phone shows two quiet seconds and two loud ones.
fn assert_drawn(shown: &Value) {
    let media = &shown["media"];
    assert_eq!((&shown["kind"], &media["mimetype"]), (&json!("voice"), &json!("audio/ogg; codecs=opus")), "{shown}");
    assert_eq!(media["seconds"], 4, "{shown}");
    let bars: Vec<_> = media["waveform"].as_array().unwrap().iter().map(|bar| bar.as_u64().unwrap()).collect();
    assert_eq!(bars.len(), 64, "{shown}");
    assert!(bars[..30].iter().all(|bar| *bar < 10) && bars[34..62].iter().all(|bar| *bar > 80), "{bars:?}");
}

#[tokio::test]
async fn every_recording_becomes_a_voice_note() {
    if ffmpeg::is_missing() {
        return;
    }
    let world = paired(&[]).await;
    for (codec, name, mimetype) in [
        ("-c:a aac", "a.m4a", Some("audio/mp4")),
        ("-c:a aac -f mp4", "a.mp4", Some("audio/mp4;codecs=mp4a.40.2")),
        ("-c:a aac -f mp4 -movflags frag_keyframe+empty_moov+default_base_moof -frag_duration 250000", "a.mp4", None),
        ("-c:a aac", "a.aac", None),
        ("-c:a libmp3lame -ac 2", "a.mp3", Some("audio/mpeg")),
        ("-c:a pcm_s16le", "a.wav", Some("audio/wav")),
        ("-c:a pcm_f32le -ar 48000 -ac 2", "a.wav", Some("audio/x-wav")),
        ("-c:a flac", "a.flac", Some("audio/flac")),
        ("-c:a libvorbis -ac 2", "a.ogg", Some("audio/ogg")),
        ("-c:a libvorbis", "a.webm", Some("audio/webm")),
        ("-c:a pcm_s16be", "a.aiff", Some("audio/aiff")),
    ] {
        let recording = ffmpeg::made(&format!("{SPEECH} {codec}"), name);
        let (shown, note) = sent(&world, &recording, mimetype).await;
        assert_drawn(&shown);
        assert_plays(&note, 4.0);
    }
}

#[tokio::test]
async fn opus_is_packed_anew_and_not_encoded_again() {
    if ffmpeg::is_missing() {
        return;
    }
    let world = paired(&[]).await;
    for (options, name, mimetype) in [
        // As Chrome records: a stream whose end nobody knows, and whose name is often another's.
        ("-f webm -live 1 -ac 1", "a.webm", Some("audio/webm;codecs=opus")),
        ("-f webm -ac 2", "a.webm", Some("audio/ogg; codecs=opus")),
        ("-ac 2", "a.ogg", None),
        ("-ac 1 -f mp4", "a.mp4", None),
        ("-ac 2 -f mp4 -movflags frag_keyframe+empty_moov -frag_duration 100000", "a.mp4", Some("audio/mp4")),
        ("-ac 1 -frame_duration 60 -application voip -f matroska", "a.mka", None),
    ] {
        let recording = ffmpeg::made(&format!("{SPEECH} -c:a libopus {options}"), name);
        let (shown, note) = sent(&world, &recording, mimetype).await;
        assert_drawn(&shown);
        assert_plays(&note, 4.0);
        assert_eq!(ffmpeg::packets(&note), ffmpeg::packets(&recording), "{name} {options}");
    }
}

#[tokio::test]
async fn a_voice_note_is_sent_as_it_is_and_described() {
    if ffmpeg::is_missing() {
        return;
    }
    let world = paired(&[]).await;
    let note = ffmpeg::made(&format!("{SPEECH} -c:a libopus -ac 1"), "a.ogg");
    let (shown, got) = sent(&world, &note, None).await;
    assert_drawn(&shown);
    assert!(got == note, "equal bytes");
    // What somebody sent us, in other words.
    let told = world.service.tenant("acme").get(&format!("/messages/{}", shown["id"].as_str().unwrap())).await;
    assert_eq!(told["status"], "delivered", "{told}");
}

#[tokio::test]
async fn the_bytes_of_the_call_are_what_makes_it_the_same_call() {
    if ffmpeg::is_missing() {
        return;
    }
    let world = paired(&[]).await;
    let recording = ffmpeg::made(&format!("{SPEECH} -c:a libmp3lame"), "a.mp3");
    let fields = [("idempotencyKey", "k-1"), ("voice", "true")];
    let (status, first) = send_form(&world.service, &fields, "a.mp3", recording.clone()).await;
    assert_eq!(status, 200, "{first}");
    let (status, again) = send_form(&world.service, &fields, "a.mp3", recording.clone()).await;
    assert_eq!((status, &again["id"]), (200, &first["id"]), "{again}");
    // The note that was made of them is another file.
    let (_, note) = world.until_file(BRUNO, &first["id"]).await;
    let (status, other) = send_form(&world.service, &fields, "a.mp3", note.clone()).await;
    assert_eq!((status, &other["code"]), (409, &json!("idempotency_conflict")), "{other}");
    // It is made and uploaded once, and is not mixed up with the same bytes as they are.
    let uploads = world.uploads().await;
    let (shown, same) = sent(&world, &recording, None).await;
    assert_eq!((same == note, world.uploads().await), (true, uploads));
    assert_drawn(&shown);
    let (status, audio) = send_form(&world.service, &[], "a.mp3", recording.clone()).await;
    assert_eq!(status, 200, "{audio}");
    let (shown, bytes) = world.until_file(BRUNO, &audio["id"]).await;
    assert_eq!((&shown["kind"], bytes == recording), (&json!("audio"), true));
}

#[tokio::test]
async fn a_note_is_made_by_json_and_by_url_too() {
    if ffmpeg::is_missing() {
        return;
    }
    let world = paired(&[("ALLOW_PRIVATE_TARGETS", "true"), ("BODY_LIMIT", "4000000")]).await;
    let recording = ffmpeg::made(&format!("{SPEECH} -c:a aac"), "a.m4a");
    let url = crate::media_names::serve(&[], recording.clone()).await;
    let acme = world.service.tenant("acme");
    for media in [json!({"base64": BASE64_STANDARD.encode(&recording)}), json!({"url": url})] {
        let body = json!({"to": BRUNO, "voice": true, "media": media});
        let (status, answer) = acme.call(Method::POST, "/send", Some(body)).await;
        assert_eq!(status, Status::OK, "{answer}");
        let (shown, note) = world.until_file(BRUNO, &answer["id"]).await;
        assert_drawn(&shown);
        assert_plays(&note, 4.0);
    }
}

#[tokio::test]
async fn what_can_not_become_a_voice_note_is_said() {
    if ffmpeg::is_missing() {
        return;
    }
    let world = paired(&[]).await;
    let film = |name| ffmpeg::made(&format!("{SPEECH} -f lavfi -i testsrc=d=1:s=64x48 -shortest"), name);
    let silent_film = ffmpeg::made("-f lavfi -i testsrc=d=1:s=64x48", "a.mp4");
    let surround = ffmpeg::made(&format!("{SPEECH} -c:a libopus -ac 6 -mapping_family 1"), "a.ogg");
    let truncated = ffmpeg::made(&format!("{SPEECH} -c:a aac"), "a.m4a")[..500].to_vec();
    let long = ffmpeg::made("-f lavfi -i anullsrc=r=8000:cl=mono -t 1801 -c:a flac", "a.flac");
    let amr = b"#!AMR\n\x3c\x91\x17\x16\xbe\x66\x79\xe1\xe0\x01\xe7\xaf\xf0\0\0\0\x80".repeat(20);
    for (bytes, status, code, word) in [
        (film("a.mp4"), 415, "media_type", "video"),
        (film("a.webm"), 415, "media_type", "video"),
        (silent_film, 415, "media_type", "video"),
        (surround, 415, "media_type", "Opus, AAC, MP3"),
        (truncated, 415, "media_type", "Opus, AAC, MP3"),
        (amr, 415, "media_type", "Opus, AAC, MP3"),
        (b"plain text".to_vec(), 415, "media_type", "Opus, AAC, MP3"),
        (long, 413, "media_too_large", "30 minutes"),
    ] {
        let (got, problem) = send_form(&world.service, &[("voice", "true")], "x", bytes).await;
        assert_eq!((got, &problem["code"], &problem["retryable"]), (status, &json!(code), &json!(false)), "{problem}");
        assert!(problem["message"].as_str().unwrap().contains(word), "{problem}");
    }
    assert_eq!(files(&world.service), 0, "and nothing is left behind");
}

/// A Vorbis file whose header asks for gigabytes: many codebooks of a few bytes, each of which unpacks to megabytes.
fn vorbis_bomb() -> Vec<u8> {
    struct Bits(Vec<u8>, usize);
    impl Bits {
        fn put(&mut self, value: u32, count: usize) {
            for bit in 0..count {
                if self.1.is_multiple_of(8) {
                    self.0.push(0);
                }
                *self.0.last_mut().unwrap() |= ((value >> bit & 1) as u8) << (self.1 % 8);
                self.1 += 1;
            }
        }
    }
    let mut setup = Bits(b"\x05vorbis".to_vec(), 56);
    setup.put(255, 8);
    for _ in 0..256 {
        setup.put(0x56_4342, 24);
        setup.put(31, 16);
        setup.put(131_072, 24);
        // All of the entries have the same length, 17 bits, in order.
        setup.put(1, 1);
        setup.put(16, 5);
        setup.put(131_072, 18);
        // A lookup table of one value for all of them.
        setup.put(1, 4);
        setup.put(0, 32);
        setup.put(0, 32);
        setup.put(0, 4);
        setup.put(0, 1);
        setup.put(0, 1);
    }
    let identification = b"\x01vorbis\0\0\0\0\x01\x44\xac\0\0\0\0\0\0\0\xee\x02\0\0\0\0\0\xb8\x01";
    let comment = b"\x03vorbis\0\0\0\0\0\0\0\0\x01";
    let page = |number: u32, flags: u8, packet: &[u8]| {
        let mut lacing = vec![255; packet.len() / 255];
        lacing.push((packet.len() % 255) as u8);
        let head = [b"OggS\0", &[flags][..], &[0; 8], &[1, 0, 0, 0], &number.to_le_bytes()].concat();
        let rest = [&[lacing.len() as u8][..], &lacing, packet].concat();
        let crc = [&head[..], &[0; 4], &rest].concat().iter().fold(0_u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| crc << 1 ^ if crc >> 31 > 0 { 0x04c1_1db7 } else { 0 })
        });
        [head, crc.to_le_bytes().to_vec(), rest].concat()
    };
    let pages = [page(0, 2, identification), page(1, 0, comment), page(2, 0, &setup.0), page(3, 4, &[0; 200])];
    pages.concat()
}

#[tokio::test]
async fn a_recording_that_asks_for_gigabytes_costs_its_sender_a_refusal() {
    let world = paired(&[]).await;
    let bomb = vorbis_bomb();
    assert!(bomb.len() < 20_000);
    let before = crate::media::peak(&world.service);
    let (status, problem) = send_form(&world.service, &[("voice", "true")], "x.ogg", bomb).await;
    assert_eq!((status, &problem["code"]), (415, &json!("media_type")), "{problem}");
    assert!(crate::media::peak(&world.service) < before + 32 * 1024 * 1024, "the service itself takes none of it");
    // It got no more memory, and aborted.
    eventually("its limit has ended it", || async {
        let log = world.service.log.text();
        (log.contains("could not be made a voice note") && log.contains("signal: 6")).then_some(())
    })
    .await;
    world.service.tenant("acme").send_ok(BRUNO, "all else goes on").await;
}

/// Noise of half an hour, which takes a while.
fn long_recording() -> Vec<u8> {
    ffmpeg::made("-f lavfi -i anoisesrc=d=20 -c:a libmp3lame -b:a 32k -ac 1 -write_xing 0 -id3v2_version 0", "a.mp3")
        .repeat(85)
}

#[tokio::test]
async fn who_hangs_up_leaves_neither_a_process_nor_a_file() {
    if ffmpeg::is_missing() {
        return;
    }
    let world = paired(&[]).await;
    let recording = long_recording();
    let form = Form::default().text("to", BRUNO).text("voice", "true").file("a.mp3", &recording);
    let request = world.service.request(Method::POST, "/send").header("X-Tenant-Id", "acme");
    let call = tokio::spawn(form.send_as(request).send());
    eventually("the note is being made", || async { (!children(&world).is_empty()).then_some(()) }).await;
    call.abort();
    eventually("nothing is left", || async {
        (children(&world).is_empty() && files(&world.service) == 0).then_some(())
    })
    .await;
    assert_eq!(world.shown_on(BRUNO).await.len(), 0);
}

#[tokio::test]
async fn a_process_that_somebody_ends_says_nothing_of_the_recording() {
    if ffmpeg::is_missing() {
        return;
    }
    let world = paired(&[]).await;
    let recording = long_recording();
    let form = Form::default().text("to", BRUNO).text("voice", "true").file("a.mp3", &recording);
    let request = world.service.request(Method::POST, "/send").header("X-Tenant-Id", "acme");
    let call = tokio::spawn(crate::harness::answer(form.send_as(request)));
    let process = eventually("the note is being made", || async { children(&world).pop() }).await;
    ffmpeg::run(std::path::Path::new("/"), &format!("kill -TERM {process}"));
    let (status, problem) = call.await.unwrap();
    assert_eq!((status.as_u16(), &problem["code"]), (503, &json!("media_busy")), "{problem}");
    assert_eq!((&problem["retryable"], &problem["retryAfter"]), (&json!(true), &json!(10)), "{problem}");
    assert_eq!(files(&world.service), 0);
}

/// The processes that the service has started and that have not ended.
fn children(world: &World) -> Vec<u32> {
    let parent = world.service.pid().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // Behind the name, which may hold anything: the state, and the parent.
        let is_child = stat.rsplit_once(')')?.1.split_whitespace().nth(1)? == parent;
        is_child.then(|| entry.file_name().to_str()?.parse().ok())?
    });
    processes.collect()
}
