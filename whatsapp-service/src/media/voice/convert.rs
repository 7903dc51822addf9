//! Making a voice note of a recording: mono Opus of 48 kHz in Ogg, which every phone plays.
//!
//! Opus is packed anew and stays as it is; all else is decoded and encoded. What a recording says of itself decides how
//! much memory and time that takes, so this runs in a process of its own, within limits: see [`super::worker`].

use std::io::{Read, Seek, Write};

use resampler::{Attenuation, Latency, ResamplerFir};
use ropus::{Application, Bitrate, Channels, DecodeMode, Decoder, Encoder};
use serde::{Deserialize, Serialize};
use symphonia::core::{
    codecs::{
        CodecParameters,
        audio::{AudioCodecParameters, AudioDecoderOptions, well_known::CODEC_ID_OPUS},
    },
    errors::Error,
    formats::{FormatOptions, FormatReader, TrackType, probe::Hint},
    io::{MediaSource, MediaSourceStream},
    meta::MetadataOptions,
    packet::Packet,
    units::TimeBase,
};

use crate::media::voice::{
    opus,
    opus::{Head, MAX_PACKET, RATE},
    waveform::Waveform,
};

/// How long a recording may play, in seconds.
pub const LONGEST: u64 = 1_800;
/// How much the encoder may spend, in bits per second.
const BITRATE: u32 = 32_000;
/// How hard it tries, of 10: more costs twice the time, and is not heard in speech.
const COMPLEXITY: u8 = 5;
/// How much is encoded at a time, in samples: 20 ms.
const FRAME: usize = 960;
/// The sample rates that are taken, in Hz.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=384_000;

/// What is known of a voice note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// How long it plays.
    pub seconds: u32,
    /// How loud it is from its beginning to its end: 64 values from 0 to 100.
    pub waveform: Vec<u8>,
}

/// Why no voice note is made of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Refused {
    /// It holds no audio that can be read here.
    Unreadable,
    /// It is a video.
    Video,
    /// It plays for too long.
    TooLong,
    /// What was made could not be handed on.
    Output,
}

/// Makes a voice note of `recording`, and writes it to `to`; with `to` absent, only listens.
pub fn convert(
    recording: impl Read + Seek + Send + Sync + 'static,
    size: u64,
    to: Option<impl Write>,
) -> Result<Note, Refused> {
    let source = MediaSourceStream::new(Box::new(Source { inner: recording, size }), Default::default());
    let (hint, format, meta) = (Hint::new(), FormatOptions::default(), MetadataOptions::default());
    let mut reader = symphonia::default::get_probe().probe(&hint, source, format, meta).map_err(unreadable)?;
    if reader.tracks().iter().any(|track| track.track_type() == Some(TrackType::Video)) {
        return Err(Refused::Video);
    }
    let track = reader.default_track(TrackType::Audio).ok_or(Refused::Unreadable)?;
    let (id, ticks) = (track.id, track.time_base);
    let Some(CodecParameters::Audio(about)) = track.codec_params.clone() else { return Err(Refused::Unreadable) };
    match about.codec {
        CODEC_ID_OPUS => repack(&mut *reader, id, ticks, &about, to),
        _ => encode(&mut *reader, id, &about, to),
    }
}

/// The next packet of a track. What breaks off ends there.
fn next(reader: &mut dyn FormatReader, track: u32) -> Option<Packet> {
    loop {
        match reader.next_packet() {
            Ok(Some(packet)) if packet.track_id == track => return Some(packet),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

fn repack(
    reader: &mut dyn FormatReader,
    track: u32,
    ticks: Option<TimeBase>,
    about: &AudioCodecParameters,
    to: Option<impl Write>,
) -> Result<Note, Refused> {
    let head = about.extra_data.as_deref().and_then(Head::read).ok_or(Refused::Unreadable)?;
    let mut writer = to.map(|to| opus::Writer::new(to, &head)).transpose().map_err(output)?;
    // It is decoded to be listened to, and for nothing else.
    let mut decoder = Decoder::new(RATE, Channels::Mono).map_err(|_| Refused::Unreadable)?;
    let (mut waveform, mut heard) = (Waveform::default(), vec![0.0; MAX_PACKET as usize]);
    let (mut total, mut silent, mut skip) = (0, 0, usize::from(head.skip));
    while let Some(packet) = next(reader, track) {
        let Some(samples) = opus::samples(&packet.data) else { continue };
        total += samples;
        limit(total)?;
        silent = ticks.map_or(0, |ticks| {
            let ticks = (u64::from(ticks.numer.get()), u64::from(ticks.denom.get()));
            packet.trim_end.get().saturating_mul(ticks.0).saturating_mul(RATE.into()) / ticks.1
        });
        let heard = match decoder.decode_float(&packet.data, &mut heard, DecodeMode::Normal) {
            Ok(count) => &heard[..count],
            Err(_) => &[],
        };
        let from = skip.min(heard.len());
        skip -= from;
        waveform.hear(&heard[from..]);
        if let Some(writer) = &mut writer {
            writer.write(packet.data.into_vec(), samples).map_err(output)?;
        }
    }
    if total == 0 {
        return Err(Refused::Unreadable);
    }
    let silent = silent.min(total).min(MAX_PACKET);
    if let Some(writer) = writer {
        writer.finish(total - silent).map_err(output)?;
    }
    Ok(note(total.saturating_sub(head.skip.into()).saturating_sub(silent), waveform))
}

fn encode(
    reader: &mut dyn FormatReader,
    track: u32,
    about: &AudioCodecParameters,
    to: Option<impl Write>,
) -> Result<Note, Refused> {
    let options = AudioDecoderOptions::default();
    let mut decoder = symphonia::default::get_codecs().make_audio_decoder(about, &options).map_err(unreadable)?;
    let (mut mixed, mut speech, mut to) = (Vec::<f32>::new(), None::<Speech<_>>, to);
    while let Some(packet) = next(reader, track) {
        let decoded = match decoder.decode_ref(&packet.as_packet_ref()) {
            Ok(decoded) => decoded,
            // One that is damaged is left out.
            Err(Error::DecodeError(_) | Error::IoError(_)) => continue,
            Err(_) => break,
        };
        let (channels, rate) = (decoded.spec().channels().count().max(1), decoded.spec().rate());
        decoded.copy_to_vec_interleaved(&mut mixed);
        let speech = match &mut speech {
            Some(speech) => speech,
            None if !RATES.contains(&rate) => return Err(Refused::Unreadable),
            none => none.insert(Speech::new(rate, to.take())?),
        };
        if speech.rate != rate {
            return Err(Refused::Unreadable);
        }
        let mono = mixed.chunks(channels).map(|frame| {
            let mean = frame.iter().sum::<f32>() / channels as f32;
            if mean.is_finite() { mean.clamp(-1.0, 1.0) } else { 0.0 }
        });
        speech.add(mono.collect())?;
    }
    speech.ok_or(Refused::Unreadable)?.finish()
}

/// One channel on its way to Opus.
struct Speech<W: Write> {
    rate: u32,
    resampler: Option<(ResamplerFir, Vec<f32>)>,
    encoder: Encoder,
    /// What is too short for a frame.
    rest: Vec<f32>,
    /// How many samples came, at their own rate.
    came: u64,
    waveform: Waveform,
    writer: Option<opus::Writer<W>>,
}

impl<W: Write> Speech<W> {
    fn new(rate: u32, to: Option<W>) -> Result<Self, Refused> {
        let encoder = Encoder::builder(RATE, Channels::Mono, Application::Voip)
            .bitrate(Bitrate::Bits(BITRATE))
            .complexity(COMPLEXITY)
            .build()
            .map_err(|_| Refused::Unreadable)?;
        let head = Head { skip: encoder.lookahead() as u16, recorded: rate, gain: 0 };
        let writer = to.map(|to| opus::Writer::new(to, &head)).transpose().map_err(output)?;
        let resampler = (rate != RATE).then(|| {
            let resampler = ResamplerFir::new_from_hz(1, rate, RATE, Latency::Sample64, Attenuation::Db90);
            let room = vec![0.0; resampler.buffer_size_output()];
            (resampler, room)
        });
        let waveform = Waveform::default();
        let mut speech = Self { rate, resampler, encoder, rest: Vec::new(), came: 0, waveform, writer };
        // What comes first is in the middle of what the filter sees first.
        speech.resample(vec![0.0; speech.reach()])?;
        Ok(speech)
    }

    /// How far the filter sees to each side.
    fn reach(&self) -> usize {
        self.resampler.as_ref().map_or(0, |(resampler, _)| resampler.delay())
    }

    fn add(&mut self, samples: Vec<f32>) -> Result<(), Refused> {
        self.came += samples.len() as u64;
        limit(self.came * u64::from(RATE) / u64::from(self.rate))?;
        self.resample(samples)
    }

    fn resample(&mut self, samples: Vec<f32>) -> Result<(), Refused> {
        let Some((resampler, room)) = &mut self.resampler else {
            self.waveform.hear(&samples);
            self.rest.extend(samples);
            return self.encode();
        };
        let mut samples = &samples[..];
        while !samples.is_empty() {
            let (taken, made) = resampler.resample(samples, room).map_err(|_| Refused::Unreadable)?;
            if taken == 0 && made == 0 {
                return Err(Refused::Unreadable);
            }
            samples = &samples[taken..];
            self.waveform.hear(&room[..made]);
            self.rest.extend_from_slice(&room[..made]);
        }
        self.encode()
    }

    /// Encodes all that fills frames.
    fn encode(&mut self) -> Result<(), Refused> {
        let whole = self.rest.len() / FRAME * FRAME;
        let mut packet = [0; 4_000];
        for frame in self.rest[..whole].chunks(FRAME) {
            let Some(writer) = &mut self.writer else { continue };
            let length = self.encoder.encode_float(frame, &mut packet).map_err(|_| Refused::Unreadable)?;
            writer.write(packet[..length].to_vec(), FRAME as u64).map_err(output)?;
        }
        self.rest.drain(..whole);
        Ok(())
    }

    fn finish(mut self) -> Result<Note, Refused> {
        if self.came == 0 {
            return Err(Refused::Unreadable);
        }
        self.resample(vec![0.0; self.reach()])?;
        // What the encoder still holds back comes out behind silence.
        let skip = self.encoder.lookahead() as usize;
        self.rest.resize((self.rest.len() + skip).next_multiple_of(FRAME), 0.0);
        self.encode()?;
        let total = (self.came * u64::from(RATE)).div_ceil(self.rate.into());
        if let Some(writer) = self.writer {
            writer.finish(total + skip as u64).map_err(output)?;
        }
        Ok(note(total, self.waveform))
    }
}

fn note(samples: u64, waveform: Waveform) -> Note {
    let rate = u64::from(RATE);
    let seconds = ((samples + rate / 2) / rate).max(1);
    Note { seconds: u32::try_from(seconds).unwrap_or(u32::MAX), waveform: waveform.bars() }
}

fn limit(samples: u64) -> Result<(), Refused> {
    if samples > LONGEST * u64::from(RATE) { Err(Refused::TooLong) } else { Ok(()) }
}

fn unreadable(_: Error) -> Refused {
    Refused::Unreadable
}

fn output(_: std::io::Error) -> Refused {
    Refused::Output
}

/// A recording of known length that can be read from any place.
struct Source<R> {
    inner: R,
    size: u64,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read(into)
    }
}

impl<R: Seek> Seek for Source<R> {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.inner.seek(to)
    }
}

impl<R: Read + Seek + Send + Sync> MediaSource for Source<R> {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.size)
    }
}

#[cfg(test)]
mod tests;
