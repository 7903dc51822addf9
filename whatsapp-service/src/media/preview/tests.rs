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
    let exif = [webp(b"VP8X", b"\x08\0\0\0\0\0\0\0\0\0"), b"EXIF\xf0\xff\xff\xffExif\0\0MM\0\x2a".to_vec()].concat();
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
