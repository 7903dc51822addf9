//! What media is: the kinds that WhatsApp knows, and which of them some bytes are.

use crate::{
    media::{
        NotTaken,
        mime::{self, UNKNOWN, VOICE},
    },
    model::media::MediaKind,
};

/// How many bytes are looked at to say what they are.
pub const HEAD: usize = 8 * 1024;

/// What the caller says that the bytes are to be.
#[derive(Clone, Debug, Default)]
pub struct Claim {
    /// Their MIME type, as the caller says.
    pub mimetype: Option<String>,
    /// Their MIME type, as whoever sends them says: it fills in what the bytes don't tell, and proves nothing.
    pub hint: Option<String>,
    /// Whether they are a voice note.
    pub voice: bool,
    /// Whether they are a sticker.
    pub sticker: bool,
    /// Whether they are a document, whatever else they could be.
    pub document: bool,
    /// Whether they are a video that plays in a loop.
    pub gif: bool,
}

/// What bytes are, as far as their beginning tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guess {
    /// What they are sent as.
    pub kind: MediaKind,
    /// Their MIME type.
    pub mimetype: String,
    /// Whether the caller said that type: then no name knows better.
    pub said: bool,
    /// What more is to be looked at when all of them are here.
    pub look: Look,
}

/// What decides, where the beginning of the bytes does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing: it is known.
    Nothing,
    /// The tracks of an MP4 or 3GP file: it is a video, or only audio.
    Tracks,
    /// The names in a ZIP archive: documents and apps are such archives too.
    Archive,
    /// The audio is made a voice note, unless it is one as it is: mono Opus in Ogg.
    Voice {
        /// Whether it is one.
        ready: bool,
    },
}

impl Guess {
    /// What the bytes that begin with `head` are sent as.
    pub fn of(head: &[u8], claim: &Claim) -> Result<Self, NotTaken> {
        let wishes = [claim.voice, claim.sticker, claim.document, claim.gif];
        if wishes.into_iter().filter(|wish| *wish).count() > 1 {
            return Err(NotTaken::Clash);
        }
        let found = sniff(head);
        let claimed = claim.mimetype.as_deref().map(mime::said).transpose()?.flatten();
        if claim.voice {
            // Whatever it is called: what is sent is something else anyway.
            if !found.is_some_and(has_audio) {
                return Err(NotTaken::NoVoice);
            }
            let look = Look::Voice { ready: is_mono_opus(head) };
            return Ok(Self { kind: MediaKind::Voice, mimetype: VOICE.into(), said: true, look });
        }
        if let Some(claimed) = &claimed
            && !mime::agree(found, claimed)
        {
            let found = found.unwrap_or("something else");
            return Err(NotTaken::Type(format!("`media.mimetype` says {claimed}, and the bytes are {found}")));
        }
        if claim.sticker {
            return match found {
                Some(webp @ "image/webp") => {
                    Ok(Self { kind: MediaKind::Sticker, mimetype: webp.into(), said: true, look: Look::Nothing })
                }
                _ => Err(NotTaken::Type("`sticker` needs a WebP picture (image/webp)".into())),
            };
        }
        if claim.gif && found != Some("video/mp4") {
            return Err(NotTaken::NoGif);
        }
        // What phones show is called what it is, and nothing else is called so.
        let claimed = claimed.filter(|claimed| !mime::is_shown(claimed));
        let mimetype = match found.filter(|found| mime::is_shown(found)) {
            Some(shown) => shown.to_owned(),
            None => claimed.clone().unwrap_or_else(|| told(found, claim)),
        };
        let called_audio = [&claim.mimetype, &claim.hint]
            .into_iter()
            .flatten()
            .any(|called| called.trim_start().to_ascii_lowercase().starts_with("audio/"));
        let kind = match mimetype.as_str() {
            _ if claim.document => MediaKind::Document,
            "image/jpeg" | "image/png" | "image/webp" => MediaKind::Image,
            // Its tracks decide; until they are seen, what it is called does.
            "video/mp4" | "video/3gpp" if called_audio && !claim.gif => MediaKind::Audio,
            "video/mp4" | "video/3gpp" => MediaKind::Video,
            "audio/aac" | "audio/mp4" | "audio/mpeg" | "audio/amr" | "audio/ogg" | "audio/opus" => MediaKind::Audio,
            _ => MediaKind::Document,
        };
        let look = match mimetype.as_str() {
            "video/mp4" | "video/3gpp" | "audio/mp4" => Look::Tracks,
            _ if mime::canonical(&mimetype) == "application/zip" && claimed.is_none() => Look::Archive,
            _ => Look::Nothing,
        };
        // What WhatsApp calls Opus in Ogg.
        let mimetype = if mimetype == "audio/opus" { VOICE.into() } else { mimetype };
        Ok(Self { kind, mimetype, said: claimed.is_some(), look })
    }
}

impl Guess {
    /// The same when it is known which tracks there are: with moving pictures it is a video, without them audio.
    pub fn with_tracks(self, video: bool, audio: bool) -> Self {
        let kind = match self.kind {
            MediaKind::Video | MediaKind::Audio if video => MediaKind::Video,
            MediaKind::Video | MediaKind::Audio if audio => MediaKind::Audio,
            unchanged => unchanged,
        };
        let is_audio = match kind {
            MediaKind::Document => audio && !video,
            kind => kind == MediaKind::Audio,
        };
        let mimetype = match (self.mimetype.as_str(), is_audio) {
            ("video/3gpp", true) => "audio/3gpp",
            (mimetype @ "video/3gpp", false) => mimetype,
            (_, true) => "audio/mp4",
            (_, false) => "video/mp4",
        };
        Self { kind, mimetype: mimetype.into(), ..self }
    }
}

/// The type where the caller says none: what the bytes tell, or whoever sends them.
fn told(found: Option<&str>, claim: &Claim) -> String {
    let hint = claim.hint.as_deref().and_then(|hint| mime::said(hint).ok().flatten());
    let hint = hint.filter(|hint| !mime::is_shown(hint) && mime::agree(found, hint));
    let found = found.map(str::to_owned);
    let precise = |one: &String| !mime::is_vague(one);
    let best = found.clone().filter(precise).or(hint.clone().filter(precise)).or(found).or(hint);
    best.unwrap_or_else(|| UNKNOWN.into())
}

/// What the bytes are, by what they begin with.
fn sniff(head: &[u8]) -> Option<&'static str> {
    let brand = head.get(4..8).filter(|word| word == b"ftyp").and_then(|_| head.get(8..11));
    match brand {
        Some(b"3gp" | b"3g2" | b"3ge" | b"3gg") => return Some("video/3gpp"),
        Some(b"M4A" | b"M4B" | b"M4P" | b"F4A") => return Some("audio/mp4"),
        Some(b"qt ") => return Some("video/quicktime"),
        Some(b"hei" | b"hev" | b"avi" | b"cr3" | b"jp2" | b"mif" | b"msf") => {}
        Some(_) => return Some("video/mp4"),
        None => {}
    }
    match infer::get(head)?.mime_type() {
        "audio/m4a" => Some("audio/mp4"),
        "video/x-m4v" => Some("video/mp4"),
        // The pages that begin its streams come first.
        "application/ogg" | "audio/ogg" if head.windows(7).take(1024).any(|word| word == b"\x80theora") => {
            Some("video/ogg")
        }
        // Whatever else Ogg may carry, WhatsApp takes it for audio.
        "application/ogg" => Some("audio/ogg"),
        other => Some(other),
    }
}

/// Whether what was found may hold audio that a voice note can be made of.
fn has_audio(found: &str) -> bool {
    found.starts_with("audio/")
        || ["video/mp4", "video/3gpp", "video/quicktime", "video/webm", "video/x-matroska"].contains(&found)
}

/// Whether bytes begin as Opus in Ogg of one channel does (RFC 7845): the first page holds nothing but its header.
fn is_mono_opus(head: &[u8]) -> bool {
    head.starts_with(b"OggS") && head.get(28..36) == Some(b"OpusHead") && head.get(37) == Some(&1)
}

#[cfg(test)]
mod tests {
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
}
