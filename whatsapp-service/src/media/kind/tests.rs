use super::*;

const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
const WEBP: &[u8] = b"RIFF\x24\0\0\0WEBPVP8 ";
const MP4: &[u8] = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2";
const THREE_GP: &[u8] = b"\0\0\0\x18ftyp3gp4\0\0\0\0";
const M4A: &[u8] = b"\0\0\0\x18ftypM4A \0\0\0\0";
const OPUS: &[u8] = b"OggS\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x13OpusHead\x01\x02";
const AMR: &[u8] = b"#!AMR\n\x3c\x91\x17\x16\xbe\x66";
const MP3: &[u8] = b"ID3\x04\0\0\0\0\0\x23TSSE";
const AAC: &[u8] = b"\xff\xf1\x50\x80\x02\x1f\xfc";
const WAV: &[u8] = b"RIFF\x24\0\0\0WAVEfmt ";
const PDF: &[u8] = b"%PDF-1.7\n%";
const ZIP: &[u8] = b"PK\x03\x04\x14\0\0\0";
const HEIC: &[u8] = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";

fn said(mimetype: &str) -> Claim {
    Claim { mimetype: Some(mimetype.into()), ..Claim::default() }
}

fn hinted(hint: &str) -> Claim {
    Claim { hint: Some(hint.into()), ..Claim::default() }
}

fn of(head: &[u8], claim: &Claim) -> (MediaKind, String) {
    let Guess { kind, mimetype, .. } = Guess::of(head, claim).unwrap();
    (kind, mimetype)
}

#[test]
fn the_kind_follows_from_the_bytes() {
    for (head, kind, mimetype) in [
        (JPEG, MediaKind::Image, "image/jpeg"),
        (PNG, MediaKind::Image, "image/png"),
        (WEBP, MediaKind::Image, "image/webp"),
        (MP4, MediaKind::Video, "video/mp4"),
        (THREE_GP, MediaKind::Video, "video/3gpp"),
        (M4A, MediaKind::Audio, "audio/mp4"),
        (OPUS, MediaKind::Audio, "audio/ogg; codecs=opus"),
        (AMR, MediaKind::Audio, "audio/amr"),
        (MP3, MediaKind::Audio, "audio/mpeg"),
        (AAC, MediaKind::Audio, "audio/aac"),
        (PDF, MediaKind::Document, "application/pdf"),
        (b"GIF89a\x01\0\x01\0", MediaKind::Document, "image/gif"),
        (HEIC, MediaKind::Document, "image/heif"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", MediaKind::Document, "video/quicktime"),
        (b"plain text", MediaKind::Document, UNKNOWN),
    ] {
        assert_eq!(of(head, &Claim::default()), (kind, mimetype.into()), "{mimetype}");
        for claim in [said(mimetype), said(UNKNOWN), hinted("binary/octet-stream")] {
            assert_eq!(of(head, &claim), (kind, mimetype.into()), "{mimetype}, {claim:?}");
        }
    }
    let theora = [&OPUS[..28], b"\x80theora\x03\x02\x01"].concat();
    assert_eq!(of(&theora, &Claim::default()), (MediaKind::Document, "video/ogg".into()));
}

#[test]
fn what_is_said_counts_where_the_bytes_tell_nothing() {
    assert_eq!(of(b"a,b\n", &said("Text/CSV; charset=utf-8")), (MediaKind::Document, "text/csv".into()));
    assert_eq!(of(b"a,b\n", &hinted("text/csv")), (MediaKind::Document, "text/csv".into()));
    assert_eq!(of(b"a,b\n", &hinted("image/jpeg")).1, UNKNOWN, "a hint proves nothing");
    assert_eq!(of(PNG, &hinted("text/plain")), (MediaKind::Image, "image/png".into()));
    assert_eq!(of(ZIP, &hinted("application/epub+zip")).1, "application/epub+zip");
    assert_eq!(of(PDF, &hinted("text/plain")).1, "application/pdf");
    assert_eq!(of(b"<?xml version='1.0'?><svg/>", &hinted("image/svg+xml")).1, "image/svg+xml");
    for (head, said_so, is) in [
        (JPEG, "image/jpg", "image/jpeg"),
        (MP3, "audio/mp3", "audio/mpeg"),
        (M4A, "audio/x-m4a", "audio/mp4"),
        (AAC, "audio/aacp", "audio/aac"),
        (OPUS, "application/ogg", "audio/ogg; codecs=opus"),
        // What phones don't play is called as the caller does.
        (WAV, "audio/wav", "audio/wav"),
        (WAV, "audio/x-wav", "audio/x-wav"),
        (HEIC, "image/heic", "image/heic"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "video/mp4", "video/quicktime"),
    ] {
        assert_eq!(of(head, &said(said_so)).1, is, "{said_so}");
    }
}

#[test]
fn what_decides_later_is_known() {
    for (head, claim, kind, look) in [
        (MP4, Claim::default(), MediaKind::Video, Look::Tracks),
        (MP4, said("audio/mp4"), MediaKind::Audio, Look::Tracks),
        (MP4, hinted("audio/x-m4a"), MediaKind::Audio, Look::Tracks),
        (THREE_GP, said("audio/3gpp"), MediaKind::Audio, Look::Tracks),
        (M4A, said("video/mp4"), MediaKind::Audio, Look::Tracks),
        (ZIP, Claim::default(), MediaKind::Document, Look::Archive),
        (ZIP, said("application/octet-stream"), MediaKind::Document, Look::Archive),
        (ZIP, said("application/zip"), MediaKind::Document, Look::Nothing),
        (MP3, Claim { voice: true, ..Claim::default() }, MediaKind::Voice, Look::Voice { ready: false }),
        (OPUS, Claim { voice: true, ..Claim::default() }, MediaKind::Voice, Look::Voice { ready: false }),
    ] {
        let guess = Guess::of(head, &claim).unwrap();
        assert_eq!((guess.kind, guess.look), (kind, look), "{claim:?}");
    }
    let mono = [&OPUS[..37], b"\x01"].concat();
    let guess = Guess::of(&mono, &Claim { voice: true, ..Claim::default() }).unwrap();
    assert_eq!((guess.look, &*guess.mimetype), (Look::Voice { ready: true }, VOICE));
}

#[test]
fn tracks_decide() {
    for (head, claim, video, audio, expected) in [
        (MP4, Claim::default(), false, true, (MediaKind::Audio, "audio/mp4")),
        (MP4, said("audio/mp4"), true, true, (MediaKind::Video, "video/mp4")),
        (MP4, Claim::default(), false, false, (MediaKind::Video, "video/mp4")),
        (M4A, Claim::default(), true, true, (MediaKind::Video, "video/mp4")),
        (THREE_GP, Claim::default(), false, true, (MediaKind::Audio, "audio/3gpp")),
        (THREE_GP, Claim::default(), true, true, (MediaKind::Video, "video/3gpp")),
        (MP4, Claim { document: true, ..Claim::default() }, false, true, (MediaKind::Document, "audio/mp4")),
        (MP4, Claim { document: true, ..Claim::default() }, true, true, (MediaKind::Document, "video/mp4")),
    ] {
        let guess = Guess::of(head, &claim).unwrap().with_tracks(video, audio);
        assert_eq!((guess.kind, guess.mimetype.as_str()), expected, "{claim:?}");
    }
}

#[test]
fn what_contradicts_the_bytes_is_refused() {
    for (head, claimed) in [
        (PNG, "image/jpeg"),
        (b"<html>" as &[u8], "image/jpeg"),
        (b"<!DOCTYPE html><html>", "application/pdf"),
        (PDF, "video/mp4"),
        (MP4, "image/png"),
        (PNG, "application/pdf"),
        (b"MZ\x90\0", "audio/mpeg"),
    ] {
        assert!(matches!(Guess::of(head, &said(claimed)), Err(NotTaken::Type(_))), "{claimed}");
    }
    assert!(matches!(Guess::of(JPEG, &said("jpeg")), Err(NotTaken::Invalid(_))));
}

#[test]
fn voice_notes_stickers_documents_and_loops_are_asked_for() {
    let kind = |head, claim| Guess::of(head, &claim).map(|guess| guess.kind).ok();
    let voice = || Claim { voice: true, ..Claim::default() };
    let sticker = || Claim { sticker: true, ..Claim::default() };
    let document = || Claim { document: true, ..Claim::default() };
    let gif = || Claim { gif: true, ..Claim::default() };
    for head in [OPUS, MP3, AAC, WAV, MP4, M4A, AMR] {
        assert_eq!(kind(head, voice()), Some(MediaKind::Voice));
    }
    // As it is often called where it is recorded.
    assert_eq!(kind(MP4, Claim { voice: true, ..said("audio/ogg; codecs=opus") }), Some(MediaKind::Voice));
    for head in [PNG, PDF, b"plain text"] {
        assert!(matches!(Guess::of(head, &voice()), Err(NotTaken::NoVoice)));
    }
    assert_eq!(kind(WEBP, sticker()), Some(MediaKind::Sticker));
    assert_eq!(kind(PNG, sticker()), None);
    assert_eq!(kind(JPEG, document()), Some(MediaKind::Document));
    assert_eq!(kind(MP4, Claim { gif: true, ..said("audio/mp4") }), Some(MediaKind::Video));
    assert!(matches!(Guess::of(b"GIF89a\x01\0\x01\0", &gif()), Err(NotTaken::NoGif)));
    for claim in [Claim { document: true, ..voice() }, Claim { sticker: true, ..gif() }] {
        assert!(matches!(Guess::of(OPUS, &claim), Err(NotTaken::Clash)));
    }
}
