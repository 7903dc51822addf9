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
mod tests;
