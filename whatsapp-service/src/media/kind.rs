//! What media is: the kinds that WhatsApp knows, and which of them some bytes are.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use whatsapp_rust::wacore::download::MediaType;

use super::NotTaken;

/// How many bytes are looked at to say what they are.
pub const HEAD: usize = 8 * 1024;

/// What nothing more is known of.
const UNKNOWN: &str = "application/octet-stream";

/// The longest MIME type, in characters.
const MAX_MIMETYPE: usize = 128;

/// How WhatsApp shows media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = MediaKind)]
pub enum Kind {
    /// A picture.
    Image,
    /// A film.
    Video,
    /// A sound file.
    Audio,
    /// A voice note.
    Voice,
    /// A file with a name.
    Document,
    /// A sticker.
    Sticker,
}

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
}

impl Kind {
    /// What the bytes that begin with `head` are sent as, and their MIME type.
    pub fn of(head: &[u8], claim: &Claim) -> Result<(Self, String), NotTaken> {
        let found = sniff(head);
        let claimed = claim.mimetype.as_deref().map(normal).transpose()?;
        if let Some(claimed) = &claimed {
            agree(found, claimed)?;
        }
        let wishes = [claim.voice, claim.sticker, claim.document];
        if wishes.into_iter().filter(|wish| *wish).count() > 1 {
            return Err(NotTaken::Clash);
        }
        if claim.voice {
            return match found {
                Some("audio/opus") => Ok((Self::Voice, "audio/ogg; codecs=opus".into())),
                _ => Err(NotTaken::Type("`voice` needs a voice note: Opus in Ogg (audio/ogg; codecs=opus)".into())),
            };
        }
        if claim.sticker {
            return match found {
                Some("image/webp") => Ok((Self::Sticker, "image/webp".into())),
                _ => Err(NotTaken::Type("`sticker` needs a WebP picture (image/webp)".into())),
            };
        }
        let hint = claim.hint.as_deref().and_then(|hint| normal(hint).ok()).filter(|hint| !is_media(hint));
        let mimetype = match found.filter(|found| is_media(found)) {
            Some(found) => found.to_owned(),
            None => claimed.or(hint).or(found.map(str::to_owned)).unwrap_or_else(|| UNKNOWN.into()),
        };
        let kind = match mimetype.as_str() {
            _ if claim.document => Self::Document,
            "image/jpeg" | "image/png" | "image/webp" => Self::Image,
            "video/mp4" | "video/3gpp" => Self::Video,
            "audio/aac" | "audio/mp4" | "audio/mpeg" | "audio/amr" | "audio/ogg" | "audio/opus" => Self::Audio,
            _ => Self::Document,
        };
        // What WhatsApp calls Opus in Ogg.
        let mimetype = if mimetype == "audio/opus" { "audio/ogg; codecs=opus".into() } else { mimetype };
        Ok((kind, mimetype))
    }

    /// What the library calls it: the keys are derived for it, and it is uploaded to a place of its own.
    pub fn media_type(self) -> MediaType {
        match self {
            Self::Image => MediaType::Image,
            Self::Video => MediaType::Video,
            Self::Audio | Self::Voice => MediaType::Audio,
            Self::Document => MediaType::Document,
            Self::Sticker => MediaType::Sticker,
        }
    }

    /// The word as it stands in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Voice => "voice",
            Self::Document => "document",
            Self::Sticker => "sticker",
        }
    }

    /// Whether WhatsApp shows a text beside it.
    pub fn takes_caption(self) -> bool {
        matches!(self, Self::Image | Self::Video | Self::Document)
    }
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
        // Whatever else Ogg may carry, WhatsApp takes it for sound.
        "application/ogg" => Some("audio/ogg"),
        other => Some(other),
    }
}

/// A MIME type in small letters and without its parameters.
fn normal(text: &str) -> Result<String, NotTaken> {
    let bare = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_token = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    match bare.split_once('/') {
        Some((kind, name)) if is_token(kind) && is_token(name) && bare.len() <= MAX_MIMETYPE => {}
        _ => return Err(NotTaken::Invalid("`media.mimetype` is not a MIME type, as image/jpeg".into())),
    }
    Ok(match bare.as_str() {
        "image/jpg" | "image/pjpeg" => "image/jpeg".into(),
        "audio/mp3" | "audio/x-mp3" | "audio/x-mpeg" => "audio/mpeg".into(),
        "audio/m4a" | "audio/x-m4a" => "audio/mp4".into(),
        "audio/x-aac" | "audio/aacp" => "audio/aac".into(),
        "video/3gp" | "video/3gpp2" | "audio/3gpp" => "video/3gpp".into(),
        "application/ogg" => "audio/ogg".into(),
        _ => bare,
    })
}

fn is_media(mimetype: &str) -> bool {
    ["image/", "video/", "audio/"].iter().any(|family| mimetype.starts_with(family))
}

/// Whether bytes that were found to be one thing may be called another.
fn agree(found: Option<&str>, claimed: &str) -> Result<(), NotTaken> {
    let same = match (found, claimed) {
        (Some(found), claimed) if found == claimed => true,
        // One container for both, and what is in it is not looked at.
        (Some("video/mp4"), "audio/mp4") | (Some("audio/mp4"), "video/mp4") => true,
        (Some("audio/opus"), "audio/ogg") => true,
        // What nobody can tell by its first bytes may be called anything that WhatsApp does not play or show.
        (None, claimed) => !is_media(claimed) || !SHOWN.contains(&claimed),
        (Some(found), claimed) => !is_media(found) && !SHOWN.contains(&claimed),
    };
    match same {
        true => Ok(()),
        false => {
            let found = found.unwrap_or("something else");
            Err(NotTaken::Type(format!("`media.mimetype` says {claimed}, and the bytes are {found}")))
        }
    }
}

/// What phones show or play, so that its bytes must be what they are called.
const SHOWN: [&str; 10] = [
    "image/jpeg",
    "image/png",
    "image/webp",
    "video/mp4",
    "video/3gpp",
    "audio/aac",
    "audio/mp4",
    "audio/mpeg",
    "audio/amr",
    "audio/ogg",
];

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
    const PDF: &[u8] = b"%PDF-1.7\n%";

    fn said(mimetype: &str) -> Claim {
        Claim { mimetype: Some(mimetype.into()), ..Claim::default() }
    }

    #[test]
    fn the_kind_follows_from_the_bytes() {
        for (head, kind, mimetype) in [
            (JPEG, Kind::Image, "image/jpeg"),
            (PNG, Kind::Image, "image/png"),
            (WEBP, Kind::Image, "image/webp"),
            (MP4, Kind::Video, "video/mp4"),
            (THREE_GP, Kind::Video, "video/3gpp"),
            (M4A, Kind::Audio, "audio/mp4"),
            (OPUS, Kind::Audio, "audio/ogg; codecs=opus"),
            (AMR, Kind::Audio, "audio/amr"),
            (MP3, Kind::Audio, "audio/mpeg"),
            (AAC, Kind::Audio, "audio/aac"),
            (PDF, Kind::Document, "application/pdf"),
            (b"GIF89a\x01\0\x01\0", Kind::Document, "image/gif"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", Kind::Document, "image/heif"),
            (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", Kind::Document, "video/quicktime"),
            (b"plain text", Kind::Document, UNKNOWN),
        ] {
            assert_eq!(Kind::of(head, &Claim::default()).unwrap(), (kind, mimetype.into()), "{mimetype}");
            assert_eq!(Kind::of(head, &said(mimetype)).unwrap(), (kind, mimetype.into()), "{mimetype}, as said");
        }
    }

    #[test]
    fn what_is_said_counts_where_the_bytes_tell_nothing() {
        let hinted = |hint: &str| Claim { hint: Some(hint.into()), ..Claim::default() };
        assert_eq!(Kind::of(b"a,b\n", &said("Text/CSV; charset=utf-8")).unwrap(), (Kind::Document, "text/csv".into()));
        assert_eq!(Kind::of(b"a,b\n", &hinted("text/csv")).unwrap(), (Kind::Document, "text/csv".into()));
        assert_eq!(Kind::of(b"a,b\n", &hinted("image/jpeg")).unwrap().1, UNKNOWN, "a hint proves nothing");
        assert_eq!(Kind::of(PNG, &hinted("text/plain")).unwrap(), (Kind::Image, "image/png".into()));
        for (head, said_so, is) in [
            (JPEG, "image/jpg", "image/jpeg"),
            (MP3, "audio/mp3", "audio/mpeg"),
            (M4A, "audio/x-m4a", "audio/mp4"),
            (AAC, "audio/aacp", "audio/aac"),
            (THREE_GP, "audio/3gpp", "video/3gpp"),
            (OPUS, "application/ogg", "audio/ogg; codecs=opus"),
            // One container for both.
            (MP4, "audio/mp4", "video/mp4"),
            (M4A, "video/mp4", "audio/mp4"),
        ] {
            assert_eq!(Kind::of(head, &said(said_so)).unwrap().1, is, "{said_so}");
        }
    }

    #[test]
    fn what_contradicts_the_bytes_is_refused() {
        for (head, claimed) in [
            (PNG, "image/jpeg"),
            (b"<html>" as &[u8], "image/jpeg"),
            (PDF, "video/mp4"),
            (MP4, "image/png"),
            (PNG, "application/pdf"),
            (b"MZ\x90\0", "audio/mpeg"),
        ] {
            assert!(matches!(Kind::of(head, &said(claimed)), Err(NotTaken::Type(_))), "{claimed}");
        }
        for claimed in ["", "jpeg", "image/", "a b/c", "image/jpeg\r\nx: y", &format!("a/{}", "b".repeat(200))] {
            assert!(matches!(Kind::of(JPEG, &said(claimed)), Err(NotTaken::Invalid(_))), "{claimed:?}");
        }
    }

    #[test]
    fn voice_notes_stickers_and_documents_are_asked_for() {
        let kind = |head, claim| Kind::of(head, &claim).map(|(kind, _)| kind).ok();
        let voice = || Claim { voice: true, ..Claim::default() };
        let sticker = || Claim { sticker: true, ..Claim::default() };
        let document = || Claim { document: true, ..Claim::default() };
        assert_eq!(kind(OPUS, voice()), Some(Kind::Voice));
        assert_eq!(kind(MP3, voice()), None);
        assert_eq!(kind(WEBP, sticker()), Some(Kind::Sticker));
        assert_eq!(kind(PNG, sticker()), None);
        assert_eq!(kind(JPEG, document()), Some(Kind::Document));
        assert_eq!(kind(OPUS, Claim { document: true, ..voice() }), None);
    }
}
