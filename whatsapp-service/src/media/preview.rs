//! What phones show before they fetch the media itself: how large it is, how long it plays, and a small picture of it.
//!
//! All of it may be absent: media of which nothing can be said is sent all the same. Pictures are made one at a time, and
//! only of what needs little memory.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Seek},
    panic::{AssertUnwindSafe, catch_unwind},
};

use image::{DynamicImage, ImageDecoder, ImageReader, codecs::jpeg::JpegEncoder};
use lofty::{config::ParseOptions, file::AudioFile, probe::Probe};
use tokio::sync::Semaphore;

use super::{Kind, Parcel, movie, sealed::Plain};

/// The longer side of the small picture, in pixels.
const SIDE: u32 = 96;
/// How good the small picture is, of 100.
const QUALITY: u8 = 60;
/// How many bytes of a picture are read, packed as it is.
const MAX_PACKED: u64 = 16 * 1024 * 1024;

/// Looks at media.
pub struct Previews {
    /// Only one picture is unpacked at a time.
    turn: Semaphore,
    /// How much memory that may take.
    memory: u64,
}

impl Previews {
    /// Pictures may take so much memory, in bytes; with 0, none are made.
    pub fn new(memory: u64) -> Self {
        Self { turn: Semaphore::new(1), memory }
    }

    /// Notes what can be said of the media in `file`.
    pub async fn describe(&self, parcel: Parcel, kind: Kind, mimetype: &str, file: File) -> Parcel {
        let (memory, kept, mimetype) = (self.memory, parcel.clone(), mimetype.to_owned());
        let Ok(_turn) = self.turn.acquire().await else { return parcel };
        let looking = tokio::task::spawn_blocking(move || {
            // These libraries read what strangers wrote; a bug in one is not to cost the message.
            let look = || describe(parcel, kind, &mimetype, file, memory);
            catch_unwind(AssertUnwindSafe(look)).ok()
        });
        looking.await.ok().flatten().unwrap_or(kept)
    }
}

fn describe(mut parcel: Parcel, kind: Kind, mimetype: &str, file: File, memory: u64) -> Parcel {
    let Ok(plain) = Plain::new(file, &parcel.key, parcel.kind.media_type(), parcel.size) else { return parcel };
    let mut plain = BufReader::with_capacity(16 * 1024, plain);
    match kind {
        Kind::Image | Kind::Sticker => {
            let picture = Picture::of(plain, if parcel.size <= MAX_PACKED { memory } else { 0 });
            (parcel.width, parcel.height) = picture.size.unzip();
            parcel.thumbnail = picture.small.filter(|_| kind == Kind::Image);
        }
        Kind::Video => {
            let film = movie::read(&mut plain).unwrap_or_default();
            (parcel.width, parcel.height, parcel.seconds) = (film.width, film.height, film.seconds);
        }
        Kind::Audio | Kind::Voice => {
            let mut options = ParseOptions::new();
            options.read_tags(false).read_cover_art(false);
            parcel.seconds = match mimetype {
                // Two ways to the same: this one reads what has no sound of a known kind in it too.
                "audio/mp4" => movie::read(&mut plain).ok().and_then(|film| film.seconds),
                _ => seconds(plain, options).ok().flatten(),
            };
        }
        Kind::Document => {}
    }
    parcel
}

fn seconds(plain: impl io::Read + Seek, options: ParseOptions) -> Result<Option<u32>, io::Error> {
    let probe = Probe::new(BufReader::new(plain)).options(options).guess_file_type()?;
    let file = probe.read().map_err(io::Error::other)?;
    let seconds = file.properties().duration().as_secs_f64().round();
    Ok((seconds > 0.0 || file.properties().duration().as_millis() > 0).then_some((seconds as u32).max(1)))
}

#[derive(Default)]
struct Picture {
    size: Option<(u32, u32)>,
    small: Option<Vec<u8>>,
}

impl Picture {
    /// Reads the head of a picture, and the rest if that needs no more than so much memory.
    fn of(packed: impl BufRead + Seek, memory: u64) -> Self {
        let Ok(mut reader) = ImageReader::new(packed).with_guessed_format() else { return Self::default() };
        let mut limits = image::Limits::default();
        limits.max_alloc = Some(memory.max(1024 * 1024));
        reader.limits(limits);
        let Ok(mut decoder) = reader.into_decoder() else { return Self::default() };
        let turned = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
        let (width, height) = decoder.dimensions();
        let needed = decoder.total_bytes();
        let sideways = turned.to_exif() >= 5;
        let size = Some(if sideways { (height, width) } else { (width, height) });
        if needed > memory {
            return Self { size, small: None };
        }
        let small = DynamicImage::from_decoder(decoder).ok().and_then(|picture| {
            let mut picture = picture.thumbnail(SIDE, SIDE);
            picture.apply_orientation(turned);
            let mut jpeg = Cursor::new(Vec::new());
            // JPEG has no transparency.
            picture.to_rgb8().write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, QUALITY)).ok()?;
            Some(jpeg.into_inner())
        });
        Self { size, small }
    }
}

#[cfg(test)]
mod tests {
    use image::ImageEncoder;

    use super::*;
    use crate::media::sealed::Writing;

    fn png(width: u32, height: u32) -> Cursor<Vec<u8>> {
        let mut png = Cursor::new(Vec::new());
        DynamicImage::new_rgb8(width, height).write_to(&mut png, image::ImageFormat::Png).unwrap();
        png.set_position(0);
        png
    }

    #[test]
    fn a_picture_has_a_size_and_a_small_picture() {
        let picture = Picture::of(png(640, 320), 40 * 1024 * 1024);
        assert_eq!(picture.size, Some((640, 320)));
        let small = image::load_from_memory(&picture.small.unwrap()).unwrap();
        assert_eq!((small.width(), small.height()), (96, 48));
    }

    #[test]
    fn a_picture_that_was_taken_sideways_is_shown_upright() {
        // EXIF with one field: the orientation, to be turned by a quarter.
        let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let mut jpeg = Cursor::new(Vec::new());
        let mut encoder = JpegEncoder::new(&mut jpeg);
        encoder.set_exif_metadata(exif.to_vec()).unwrap();
        DynamicImage::new_rgb8(640, 320).write_with_encoder(encoder).unwrap();
        jpeg.set_position(0);
        let picture = Picture::of(jpeg, 40 * 1024 * 1024);
        assert_eq!(picture.size, Some((320, 640)));
        let small = image::load_from_memory(&picture.small.unwrap()).unwrap();
        assert_eq!((small.width(), small.height()), (48, 96));
    }

    #[tokio::test]
    async fn what_plays_has_a_length() {
        // MPEG-1, layer 3, 128 kbit/s, 44,100 Hz: 26 ms in each of these frames.
        let mp3 = [&b"\xff\xfb\x90\0"[..], &[0; 413]].concat().repeat(100);
        for (kind, mimetype, bytes, seconds) in [
            (Kind::Audio, "audio/mpeg", mp3, Some(3)),
            (Kind::Audio, "audio/mp4", movie::tests::film(), Some(7)),
            (Kind::Video, "video/mp4", movie::tests::film(), Some(7)),
            (Kind::Audio, "audio/mpeg", vec![7; 5_000], None),
        ] {
            let file = tempfile::tempfile().unwrap();
            let mut writing = Writing::new(file.try_clone().unwrap(), kind.media_type()).unwrap();
            writing.write(&bytes).unwrap();
            let info = writing.finish().unwrap();
            let parcel = Parcel {
                file: String::new(),
                kind,
                key: info.media_key.to_vec(),
                sha256: Vec::new(),
                encrypted_sha256: Vec::new(),
                size: info.file_length,
                at: 0,
                sidecar: None,
                width: None,
                height: None,
                seconds: None,
                thumbnail: None,
                upload: None,
            };
            let parcel = Previews::new(1_000_000).describe(parcel, kind, mimetype, file).await;
            assert_eq!(parcel.seconds, seconds, "{mimetype}, {} bytes", bytes.len());
        }
    }

    #[test]
    fn a_picture_that_needs_much_memory_has_only_a_size() {
        let picture = Picture::of(png(2000, 1000), 1_000_000);
        assert_eq!((picture.size, picture.small), (Some((2000, 1000)), None));
    }

    #[test]
    fn what_is_no_picture_has_neither() {
        let picture = Picture::of(Cursor::new(b"\x89PNG\r\n\x1a\nand then nothing".to_vec()), 1_000_000);
        assert_eq!((picture.size, picture.small), (None, None));
    }
}
