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
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt;
    use image::ImageEncoder;

    use crate::{
        media::{
            bounded::tests::Counted,
            jpeg::tests::{head, progressive},
            webp::tests::webp,
        },
        whatsapp::media_crypto::{Writing, parcel},
    };

    use super::*;

    const MUCH: u64 = 40 * 1024 * 1024;

    fn packed(width: u32, height: u32, format: image::ImageFormat) -> Vec<u8> {
        let mut packed = Cursor::new(Vec::new());
        DynamicImage::new_rgb8(width, height).write_to(&mut packed, format).unwrap();
        packed.into_inner()
    }

    fn jpeg(width: u32, height: u32) -> Vec<u8> {
        packed(width, height, image::ImageFormat::Jpeg)
    }

    fn png(width: u32, height: u32) -> Vec<u8> {
        packed(width, height, image::ImageFormat::Png)
    }

    fn picture(bytes: &[u8], mimetype: &str, memory: u64) -> Picture {
        Picture::of(&mut Cursor::new(bytes), mimetype, memory).unwrap_or_default()
    }

    fn size_of_small(picture: &Picture) -> (u32, u32) {
        let small = image::load_from_memory(picture.small.as_ref().expect("a small picture")).unwrap();
        (small.width(), small.height())
    }

    #[test]
    fn a_picture_has_a_size_and_a_small_picture() {
        for (bytes, mimetype) in
            [(png(640, 320), "image/png"), (jpeg(640, 320), "image/jpeg"), (progressive(640, 320), "image/jpeg")]
        {
            let picture = picture(&bytes, mimetype, MUCH);
            assert_eq!((picture.size, size_of_small(&picture)), (Some((640, 320)), (96, 48)));
        }
    }

    #[test]
    fn a_picture_that_was_taken_sideways_is_shown_upright() {
        // EXIF with one field: the orientation, to be turned by a quarter.
        let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let mut jpeg = Cursor::new(Vec::new());
        let mut encoder = JpegEncoder::new(&mut jpeg);
        encoder.set_exif_metadata(exif.to_vec()).unwrap();
        DynamicImage::new_rgb8(640, 320).write_with_encoder(encoder).unwrap();
        let picture = picture(&jpeg.into_inner(), "image/jpeg", MUCH);
        assert_eq!((picture.size, size_of_small(&picture)), (Some((320, 640)), (48, 96)));
    }

    #[tokio::test]
    async fn what_plays_has_a_length() {
        // MPEG-1, layer 3, 128 kbit/s, 44,100 Hz: 26 ms in each of these frames.
        let mp3 = [&b"\xff\xfb\x90\0"[..], &[0; 413]].concat().repeat(100);
        for (kind, mimetype, bytes, seconds) in [
            (MediaKind::Audio, "audio/mpeg", mp3, Some(3)),
            (MediaKind::Audio, "audio/mp4", movie::tests::film(), Some(7)),
            (MediaKind::Video, "video/mp4", movie::tests::film(), Some(7)),
            (MediaKind::Audio, "audio/mpeg", vec![7; 5_000], None),
        ] {
            let (parcel, file) = sealed(&bytes, kind);
            let parcel = Previews::new(1_000_000).describe(parcel, kind, mimetype, file).await;
            assert_eq!(parcel.seconds, seconds, "{mimetype}, {} bytes", bytes.len());
        }
    }

    #[test]
    fn a_picture_that_needs_much_memory_has_only_a_size() {
        let only_size = Picture { size: Some((2000, 1000)), ..Picture::default() };
        for memory in [0, 6_000_000 + BESIDE - 1] {
            assert_eq!(picture(&png(2000, 1000), "image/png", memory), only_size);
        }
        for memory in [0, 6_000_000] {
            assert_eq!(picture(&jpeg(2000, 1000), "image/jpeg", memory), only_size);
        }
        assert!(picture(&png(2000, 1000), "image/png", 6_000_000 + BESIDE).small.is_some());
        assert!(picture(&jpeg(2000, 1000), "image/jpeg", 7_000_000).small.is_some());
    }

    #[test]
    fn the_scans_of_a_progressive_picture_count_and_so_does_its_file() {
        let bytes = progressive(2000, 1000);
        // One byte of grey a pixel, and two for each value of it.
        for (memory, small) in [(2_500_000, false), (5_999_999, false), (6_300_000, true)] {
            assert_eq!(picture(&bytes, "image/jpeg", memory).small.is_some(), small, "{memory}");
        }
        let long = [&bytes[..], &[0; 1_000_000]].concat();
        let picture = picture(&long, "image/jpeg", 6_900_000);
        assert_eq!(picture, Picture { size: Some((2000, 1000)), ..Picture::default() }, "a million bytes more");
    }

    #[test]
    fn no_more_is_read_of_what_is_not_unpacked() {
        for (bytes, memory) in [
            (head(0xc2, (65_535, 65_535), &[(1, 1); 3], true), MUCH),
            (head(0xc0, (640, 480), &[(1, 1); 3], false), MUCH),
            (head(0xc0, (640, 480), &[(1, 1); 3], true), 100_000),
        ] {
            let read = bytes.len() as u64;
            let mut reader = Counted::new([bytes, vec![0; 1_000_000]].concat());
            let picture = Picture::of(&mut reader, "image/jpeg", memory).unwrap();
            assert!(picture.size.is_some() && picture.small.is_none());
            assert!(reader.done < read + 100, "{} bytes", reader.done);
        }
    }

    #[test]
    fn of_webp_only_the_head_is_read() {
        // A chunk that is said to have 4 GiB, and a picture that is larger than the file says.
        let exif =
            [webp(b"VP8X", b"\x08\0\0\0\0\0\0\0\0\0"), b"EXIF\xf0\xff\xff\xffExif\0\0MM\0\x2a".to_vec()].concat();
        let inner = b"VP8 \x0a\0\0\0\x10\x02\0\x9d\x01\x2a\xff\x3f\xff\x3f".to_vec();
        let inner = [webp(b"VP8X", b"\0\0\0\0\0\0\0\0\0\0"), inner].concat();
        for bytes in [exif, inner] {
            let mut reader = Counted::new(bytes);
            let picture = Picture::of(&mut reader, "image/webp", MUCH).unwrap();
            assert_eq!(picture, Picture { size: Some((1, 1)), ..Picture::default() });
            assert_eq!(reader.done, 30);
        }
    }

    #[test]
    fn what_is_no_picture_has_neither() {
        for mimetype in ["image/png", "image/jpeg", "image/webp"] {
            for bytes in
                [&b"\x89PNG\r\n\x1a\nand then nothing"[..], b"\xff\xd8\xff\xe0\0\x10JFIF", b"RIFF\x24\0\0\0WEBPVP8 "]
            {
                assert_eq!(picture(bytes, mimetype, MUCH), Picture::default());
            }
        }
    }

    /// How much is read to find out how long this plays, and what comes out.
    fn played(bytes: Vec<u8>) -> (u64, Option<u32>) {
        let size = bytes.len() as u64;
        let mut reader = Counted::new(bytes);
        let seconds = seconds(&mut Bounded::new(&mut reader, size)).ok().flatten();
        (reader.done, seconds)
    }

    /// A frame of sound, as long as it says it is.
    fn aac(length: u16) -> Vec<u8> {
        let [high, low] = (length << 5 | 0x1f).to_be_bytes();
        let mut frame = vec![0xff, 0xf1, 0x50, 0x80 | (length >> 11) as u8, high, low, 0xfc];
        frame.resize(length.into(), 0);
        frame
    }

    #[test]
    fn sound_says_how_long_it_plays() {
        let frame = aac(744);
        assert_eq!(frame[..7], [0xff, 0xf1, 0x50, 0x80, 0x5d, 0x1f, 0xfc]);
        // A frame is 1024 of 44100 values; there may be many, and each takes some looking.
        let (done, seconds) = played(frame.repeat(861));
        assert_eq!(seconds, Some(20));
        assert!(done < 861 * 744, "{done}");
        let (_, seconds) = played(aac(60).repeat(8_613));
        assert!(seconds.is_some_and(|seconds| seconds.abs_diff(200) < 20), "{seconds:?}");
    }

    #[test]
    fn sound_that_goes_in_circles_ends() {
        // A frame without a length ends where it begins, so that the next one is the same again.
        let first = [&[0xff, 0xf1, 0x50, 0x80, 0x80, 0x1f, 0xfc][..], &[0; 1_017]].concat();
        let second = [0xff, 0xf1, 0x50, 0x80, 0, 0x1f, 0xfc];
        let bytes = [&first[..], &second, &second, &[0; 64]].concat();
        let size = bytes.len() as u64;
        let (done, seconds) = played(bytes);
        assert!(done > 20 * size, "it goes in circles: {done} of {size} bytes");
        assert_eq!(seconds, None);
    }

    #[test]
    fn junk_that_looks_like_sound_ends() {
        // The first has no frame where it says that the next one is, the second no frames at all.
        for frame in [[0xff, 0xfb, 0x90, 0x00], [0xff, 0xfb, 0xf0, 0x00]] {
            assert_eq!(played(frame.repeat(40_000)).1, None);
        }
    }

    fn sealed(bytes: &[u8], kind: MediaKind) -> (StoredMedia, File) {
        let file = tempfile::tempfile().unwrap();
        let mut writing = Writing::new(file.try_clone().unwrap(), kind).unwrap();
        writing.write(bytes).unwrap();
        let info = writing.finish().unwrap();
        let parcel = parcel(String::new(), kind, info);
        (parcel, file)
    }

    #[tokio::test]
    async fn every_kind_is_described() {
        let previews = Previews::new(MUCH);
        let film = movie::tests::film();
        let sticker = webp(b"VP8X", b"\0\0\0\0\xff\x01\0\xff\x01\0");
        for (kind, mimetype, bytes, size, seconds) in [
            (MediaKind::Image, "image/png", png(300, 200), Some((300, 200)), None),
            (MediaKind::Image, "image/webp", sticker.clone(), Some((512, 512)), None),
            (MediaKind::Sticker, "image/webp", sticker, Some((512, 512)), None),
            (MediaKind::Video, "video/mp4", film.clone(), Some((320, 240)), Some(7)),
            (MediaKind::Audio, "audio/mp4", film, None, Some(7)),
            (MediaKind::Audio, "audio/aac", aac(744).repeat(861), None, Some(20)),
        ] {
            let (parcel, file) = sealed(&bytes, kind);
            let told = previews.describe(parcel, kind, mimetype, file).await;
            assert_eq!((told.width.zip(told.height), told.seconds), (size, seconds), "{mimetype}");
            assert_eq!(told.thumbnail.is_some(), mimetype == "image/png", "{mimetype}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long_and_a_document_not_at_all() {
        let previews = Previews::new(MUCH);
        let turn = previews.turn.clone().try_acquire_owned().unwrap();
        let (parcel, file) = sealed(b"%PDF-1.7", MediaKind::Document);
        let document = previews.describe(parcel.clone(), MediaKind::Document, "application/pdf", file);
        assert_eq!(document.now_or_never(), Some(parcel), "at once");
        let (parcel, file) = sealed(&png(300, 200), MediaKind::Image);
        let told = previews.describe(parcel.clone(), MediaKind::Image, "image/png", file.try_clone().unwrap()).await;
        assert_eq!(told, parcel, "without a preview");
        drop(turn);
        let told = previews.describe(parcel, MediaKind::Image, "image/png", file).await;
        assert_eq!(told.width, Some(300));
    }

    #[tokio::test]
    async fn the_turn_ends_when_the_work_does() {
        let previews = Previews::new(MUCH);
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let work = previews.in_turn(move || {
            begun.send(()).unwrap();
            may_go_on.recv()
        });
        tokio::select! {
            _ = work => panic!("it can't have ended"),
            begun = has_begun => begun.unwrap(),
        }
        // Nobody waits for it any more.
        assert_eq!(previews.turn.available_permits(), 0);
        go_on.send(()).unwrap();
        assert_eq!(previews.in_turn(|| 7).await, Some(7));
        assert_eq!(previews.in_turn(|| -> u8 { panic!("a bug") }).await, None);
        assert_eq!(previews.in_turn(|| 7).await, Some(7));
    }
}
