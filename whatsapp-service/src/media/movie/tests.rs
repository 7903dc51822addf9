use std::io::Cursor;

use proptest::prelude::*;

use super::*;

fn named(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32 + 8).to_be_bytes(), &name[..], content].concat()
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// A video without a picture or audio, of 320 by 240 pixels and 7.5 seconds.
pub fn film() -> Vec<u8> {
    let moov = [mvhd(7500), named(b"trak", &tkhd(1, &[0; 9], 320, 240))].concat();
    [named(b"ftyp", b"isom\0\0\x02\0isomiso2"), named(b"mdat", &[9; 5000]), named(b"moov", &moov)].concat()
}

fn mvhd(length: u32) -> Vec<u8> {
    named(b"mvhd", &[numbers(&[0, 0, 0, 1000, length]), vec![0; 80]].concat())
}

fn tkhd(id: u32, matrix: &[u32; 9], width: u32, height: u32) -> Vec<u8> {
    let head = numbers(&[0, 0, 0, id, 0, 0, 0, 0, 0, 0]);
    named(b"tkhd", &[head, numbers(matrix), numbers(&[width << 16, height << 16])].concat())
}

fn track(id: u32, handler: &[u8; 4], codec: &[u8; 4]) -> Vec<u8> {
    let mdhd = named(b"mdhd", &numbers(&[0, 0, 0, 1000, 0, 0]));
    let hdlr = named(b"hdlr", &[&numbers(&[0, 0])[..], handler, &[0; 13]].concat());
    let stsd = named(b"stsd", &[numbers(&[0, 1, 16]), codec.to_vec()].concat());
    let stbl = named(b"minf", &named(b"stbl", &stsd));
    let mdia = named(b"mdia", &[mdhd, hdlr, stbl].concat());
    named(b"trak", &[tkhd(id, &[0; 9], 64, 48), mdia].concat())
}

fn moov(parts: &[Vec<u8>]) -> Movie {
    read(&mut Cursor::new(named(b"moov", &parts.concat())))
}

#[test]
fn a_video_says_how_long_and_how_large_it_is() {
    let expected = Movie { width: Some(320), height: Some(240), seconds: Some(7), has_video: true, ..Movie::default() };
    assert_eq!(read(&mut Cursor::new(film())), expected);
    // The same with times of 64 bits.
    let numbers = [1 << 24, 0, 1, 0, 2, 1000, 1, 7500].map(u32::to_be_bytes).concat();
    let whole = moov(&[named(b"mvhd", &[numbers, vec![0; 80]].concat())]);
    assert_eq!(whole.seconds, Some(((1_u64 << 32) + 7500).div_ceil(1000) as u32));
}

#[test]
fn seconds_are_the_nearest_and_one_at_least() {
    for (length, expected) in [(1, 1), (400, 1), (2980, 3), (3023, 3), (7500, 7), (7501, 8)] {
        assert_eq!(moov(&[mvhd(length)]).seconds, Some(expected), "{length}");
    }
    for unknown in [0, u32::MAX] {
        assert_eq!(moov(&[mvhd(unknown)]).seconds, None);
    }
    assert_eq!(seconds(5, 0), None);
}

#[test]
fn tracks_tell_what_is_in_it() {
    let (video, audio) = (track(1, b"vide", b"avc1"), track(2, b"soun", b"mp4a"));
    let cover = track(3, b"vide", b"jpeg");
    let told = |movie: Movie| (movie.has_video, movie.has_audio, movie.width);
    assert_eq!(told(moov(&[audio.clone(), video])), (true, true, Some(64)));
    assert_eq!(told(moov(&[audio.clone(), cover])), (false, true, None), "a still is no video");
    assert_eq!(told(moov(&[audio])), (false, true, None));
    assert_eq!(told(moov(&[mvhd(5)])), (false, false, None));
}

#[test]
fn a_turned_video_is_as_it_is_shown() {
    let one = 1_u32 << 16;
    for (matrix, size) in [
        ([one, 0, 0, 0, one, 0, 0, 0, 1 << 30], (320, 240)),
        ([0, one, 0, one.wrapping_neg(), 0, 0, 0, 0, 1 << 30], (240, 320)),
        ([0, one.wrapping_neg(), 0, one, 0, 0, 0, 0, 1 << 30], (240, 320)),
        ([one.wrapping_neg(), 0, 0, 0, one.wrapping_neg(), 0, 0, 0, 1 << 30], (320, 240)),
    ] {
        let movie = moov(&[named(b"trak", &tkhd(1, &matrix, 320, 240))]);
        assert_eq!(movie.width.zip(movie.height), Some(size), "{matrix:?}");
    }
    // Sides with a part of a pixel, as where pixels are no squares.
    let sides = [numbers(&[0; 19]), numbers(&[(160 << 16) - 9, (120 << 16) + 9])].concat();
    let movie = moov(&[named(b"trak", &named(b"tkhd", &sides))]);
    assert_eq!(movie.width.zip(movie.height), Some((160, 120)));
}

#[test]
fn fragments_are_added_up() {
    let trex = named(b"mvex", &named(b"trex", &numbers(&[0, 1, 1, 500, 0, 0])));
    let head = named(b"moov", &[mvhd(0), track(1, b"vide", b"avc1"), trex].concat());
    let fragment = |parts: &[Vec<u8>]| named(b"moof", &named(b"traf", &parts.concat()));
    let tfhd = |flags, more: &[u32]| named(b"tfhd", &numbers(&[&[flags, 1], more].concat()));
    let tfdt = |base| named(b"tfdt", &numbers(&[0, base]));
    for (fragments, expected) in [
        // Four samples as all of the track are, and then four of another length.
        (
            [
                fragment(&[tfhd(0, &[]), named(b"trun", &numbers(&[0, 4]))]),
                fragment(&[tfhd(8, &[250]), named(b"trun", &numbers(&[0, 4]))]),
            ],
            3,
        ),
        // Each sample with its own, beside its size, behind the place of the data.
        (
            [
                fragment(&[tfhd(3, &[0, 0, 1]), tfdt(0), named(b"trun", &numbers(&[0x301, 2, 9, 900, 7, 1100, 7]))]),
                fragment(&[tfhd(0, &[]), tfdt(2000), named(b"trun", &numbers(&[0x100, 1, 3000]))]),
            ],
            5,
        ),
        // Cut from something that began long ago.
        (
            [
                fragment(&[tfhd(0, &[]), tfdt(3_600_000), named(b"trun", &numbers(&[0, 2]))]),
                fragment(&[tfhd(0, &[]), tfdt(3_601_000), named(b"trun", &numbers(&[0, 6]))]),
            ],
            4,
        ),
    ] {
        let whole = [&head[..], &fragments.concat(), &named(b"mdat", &[0; 99])].concat();
        assert_eq!(read(&mut Cursor::new(&whole)).seconds, Some(expected));
        // It breaks off in the last of its data.
        let cut = &whole[..whole.len() - 50];
        assert_eq!(read(&mut Cursor::new(cut)).seconds, Some(expected));
    }
    let samples = named(b"trun", &numbers(&[0x100, u32::MAX, 1000]));
    let lying = [head, fragment(&[tfhd(0, &[]), samples])].concat();
    assert_eq!(read(&mut Cursor::new(lying)).seconds, Some(1), "as many as there are");
}

#[test]
fn a_cover_is_found() {
    let data = named(b"data", &[&numbers(&[13, 0])[..], b"\xff\xd8\xff"].concat());
    let meta = [&[0; 4][..], &named(b"ilst", &named(b"covr", &data))].concat();
    let whole = named(b"moov", &named(b"udta", &named(b"meta", &meta)));
    let (at, length) = read(&mut Cursor::new(&whole)).cover.unwrap();
    assert_eq!(&whole[at as usize..][..length as usize], b"\xff\xd8\xff");
}

#[test]
fn boxes_in_boxes_end() {
    let deep =
        (0..100_000).fold(Vec::new(), |inner, _| if inner.len() < 400_000 { named(b"moov", &inner) } else { inner });
    assert_eq!(read(&mut Cursor::new(deep)), Movie::default());
    let many = track(1, b"vide", b"avc1").repeat(10_000);
    assert!(read(&mut Cursor::new(many)).has_video);
}

proptest! {
    #[test]
    fn whatever_stands_there_ends(noise in prop::collection::vec(any::<u8>(), 0..400), at in 0..5000usize) {
        let mut film = film();
        let at = at.min(film.len());
        film.splice(at..at, noise.clone());
        let _ = read(&mut Cursor::new(film));
        for name in [b"moov", b"moof", b"traf", b"trak"] {
            let _ = read(&mut Cursor::new(named(name, &noise)));
        }
    }
}
