//! What phones show before they fetch the media itself: how large it is, how long it plays, and a small picture of it.
//!
//! All of it may be absent: media of which nothing can be said is sent all the same. It is looked at one by one, and a
//! small picture is made only of what needs little memory.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, Read, Seek, SeekFrom},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use image::{
    DynamicImage, ImageDecoder, ImageResult, Limits,
    codecs::{
        jpeg::{JpegDecoder, JpegEncoder},
        png::PngDecoder,
    },
    metadata::Orientation,
};
use lofty::{config::ParseOptions, file::AudioFile, probe::Probe};
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    media::{bounded::Bounded, jpeg, movie, webp},
    model::media::{MediaKind, StoredMedia},
    whatsapp::media_crypto::Plain,
};

/// The longer side of the small picture, in pixels.
const SIDE: u32 = 96;
/// The same of what a link leads to.
const LINK_SIDE: u32 = 192;
/// How good the small picture is, of 100.
const QUALITY: u8 = 60;
/// How much of a PNG that is not its picture is read, in bytes.
const BESIDE: u64 = 4 * 1024 * 1024;
/// For how long media waits until it is looked at.
const PATIENCE: Duration = Duration::from_secs(3);

/// Looks at media.
pub struct Previews {
    /// Only one is looked at at a time.
    turn: Arc<Semaphore>,
    /// How much memory unpacking a picture may take.
    memory: u64,
}

impl Previews {
    /// Pictures may take so much memory, in bytes; with 0, none are made.
    pub fn new(memory: u64) -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), memory }
    }

    /// Notes what can be said of the media in `file`. If others take too long, nothing is said of it.
    pub async fn describe(&self, parcel: StoredMedia, kind: MediaKind, mimetype: &str, file: File) -> StoredMedia {
        if kind == MediaKind::Document {
            return parcel;
        }
        let (memory, kept, mimetype) = (self.memory, parcel.clone(), mimetype.to_owned());
        self.in_turn(move || describe(parcel, kind, &mimetype, file, memory)).await.unwrap_or(kept)
    }

    /// A small picture of what a link leads to.
    pub async fn thumbnail(&self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let memory = self.memory;
        let look = move || {
            let mimetype = if bytes.starts_with(b"\x89PNG") { "image/png" } else { "image/jpeg" };
            Picture::of_size(&mut Cursor::new(bytes), mimetype, memory, LINK_SIDE).ok()?.small
        };
        self.in_turn(look).await.flatten()
    }

    async fn in_turn<T: Send + 'static>(&self, look: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let turn = timeout(PATIENCE, self.turn.clone().acquire_owned()).await.ok()?.ok()?;
        let looking = tokio::task::spawn_blocking(move || {
            // Looking can't be stopped. The turn ends with it, not when nobody waits any more.
            let _turn = turn;
            // These libraries read what strangers wrote; a bug in one is not to cost the message.
            catch_unwind(AssertUnwindSafe(look)).ok()
        });
        looking.await.ok().flatten()
    }
}

fn describe(mut parcel: StoredMedia, kind: MediaKind, mimetype: &str, file: File, memory: u64) -> StoredMedia {
    let Ok(plain) = Plain::new(file, &parcel.key, parcel.kind, parcel.size) else { return parcel };
    let mut plain = Bounded::new(plain, parcel.size);
    match kind {
        MediaKind::Image | MediaKind::Sticker => {
            let picture = Picture::of(&mut plain, mimetype, memory).unwrap_or_default();
            (parcel.width, parcel.height) = picture.size.unzip();
            (parcel.thumbnail, parcel.animated) = (picture.small, picture.is_animated && kind == MediaKind::Sticker);
        }
        MediaKind::Video => {
            let movie = movie::read(&mut plain);
            (parcel.width, parcel.height, parcel.seconds) = (movie.width, movie.height, movie.seconds);
            // Its cover is a picture like any other; of the video itself nothing is decoded.
            parcel.thumbnail = movie.cover.and_then(|cover| Picture::of_cover(&mut plain, cover, memory).ok()?.small);
        }
        MediaKind::Audio | MediaKind::Voice => {
            parcel.seconds = match mimetype {
                // Two ways to the same: this one reads what has no sound of a known kind in it too.
                "audio/mp4" | "audio/3gpp" => movie::read(&mut plain).seconds,
                _ => seconds(&mut plain).ok().flatten(),
            };
        }
        MediaKind::Document => {}
    }
    parcel
}

fn seconds(plain: &mut Bounded<impl Read + Seek>) -> io::Result<Option<u32>> {
    let mut options = ParseOptions::new();
    options.read_tags(false).read_cover_art(false);
    let probe = Probe::new(&mut *plain).options(options).guess_file_type()?;
    let file = probe.read().map_err(io::Error::other)?;
    let seconds = file.properties().duration().as_secs_f64().round();
    let plays = seconds > 0.0 || file.properties().duration().as_millis() > 0;
    Ok((plays && !plain.is_spent()).then_some((seconds as u32).max(1)))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Picture {
    size: Option<(u32, u32)>,
    small: Option<Vec<u8>>,
    is_animated: bool,
}

impl Picture {
    /// Reads the head of a picture, and the rest if that needs no more than so much memory.
    fn of(packed: &mut (impl Read + Seek), mimetype: &str, memory: u64) -> ImageResult<Self> {
        Self::of_size(packed, mimetype, memory, SIDE)
    }

    /// The same with a small picture of this longer side.
    fn of_size(packed: &mut (impl Read + Seek), mimetype: &str, memory: u64, side: u32) -> ImageResult<Self> {
        match mimetype {
            "image/jpeg" => Self::of_jpeg(packed, memory, side),
            "image/png" => Self::of_png(packed, memory, side),
            "image/webp" => {
                let webp = webp::read(packed)?;
                Ok(Self { size: webp.size, small: None, is_animated: webp.is_animated })
            }
            _ => Ok(Self::default()),
        }
    }

    fn of_jpeg(packed: &mut (impl Read + Seek), memory: u64, side: u32) -> ImageResult<Self> {
        let head = jpeg::read(packed)?;
        let size = Some(upright(head.size, head.turned));
        let start = packed.stream_position()?;
        let rest = packed.seek(SeekFrom::End(0))?.saturating_sub(start);
        let length = rest + head.tables.len() as u64;
        // The decoder makes a copy of the file, and unpacks that when this one is gone.
        let needed = head.memory.map(|unpacked| length + unpacked.max(length));
        if needed.is_none_or(|needed| needed > memory) {
            return Ok(Self { size, ..Self::default() });
        }
        packed.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::with_capacity(length as usize);
        bytes.extend(head.tables);
        packed.take(rest).read_to_end(&mut bytes)?;
        let small = JpegDecoder::new(Cursor::new(bytes)).and_then(|decoder| small(decoder, head.turned, side)).ok();
        Ok(Self { size, small, is_animated: false })
    }

    fn of_png(packed: &mut (impl Read + Seek), memory: u64, side: u32) -> ImageResult<Self> {
        let mut limits = Limits::default();
        limits.max_alloc = Some(BESIDE);
        let mut decoder = PngDecoder::with_limits(BufReader::with_capacity(16 * 1024, packed), limits)?;
        let turned = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let size = Some(upright(decoder.dimensions(), turned));
        let needed = decoder.total_bytes().saturating_add(BESIDE);
        let small = if needed > memory { None } else { small(decoder, turned, side).ok() };
        Ok(Self { size, small, is_animated: false })
    }

    /// A JPEG or PNG that stands in another file.
    fn of_cover(file: &mut (impl Read + Seek), (from, length): (u64, u64), memory: u64) -> ImageResult<Self> {
        let mut cover = Within { file, from, length, at: 0 };
        let mut first = [0; 4];
        cover.read_exact(&mut first)?;
        cover.rewind()?;
        Self::of(&mut cover, if &first == b"\x89PNG" { "image/png" } else { "image/jpeg" }, memory)
    }
}

/// A part of a file, as if it were one.
struct Within<R> {
    file: R,
    from: u64,
    length: u64,
    at: u64,
}

impl<R: Read + Seek> Read for Within<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.length.saturating_sub(self.at)).unwrap_or(usize::MAX).min(into.len());
        self.file.seek(SeekFrom::Start(self.from + self.at))?;
        let count = self.file.read(&mut into[..left])?;
        self.at += count as u64;
        Ok(count)
    }
}

impl<R: Read + Seek> Seek for Within<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.filter(|at| *at <= self.length).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// The size after it is turned.
fn upright((width, height): (u32, u32), turned: Orientation) -> (u32, u32) {
    let sideways = turned.to_exif() >= 5;
    if sideways { (height, width) } else { (width, height) }
}

fn small(decoder: impl ImageDecoder, turned: Orientation, side: u32) -> ImageResult<Vec<u8>> {
    let mut picture = DynamicImage::from_decoder(decoder)?.thumbnail(side, side);
    picture.apply_orientation(turned);
    let mut jpeg = Cursor::new(Vec::new());
    // JPEG has no transparency.
    picture.to_rgb8().write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, QUALITY))?;
    Ok(jpeg.into_inner())
}

#[cfg(test)]
mod tests;
