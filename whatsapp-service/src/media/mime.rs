//! MIME types: which of them mean the same, and what some bytes may be called without misleading a phone.

use crate::media::NotTaken;

/// What nothing more is known of.
pub const UNKNOWN: &str = "application/octet-stream";
/// What voice notes are called: the only name that iPhones play.
pub const VOICE: &str = "audio/ogg; codecs=opus";
/// The longest MIME type, in characters.
const MAX_MIMETYPE: usize = 128;

/// Names that say that nothing is said: servers and clients write them for every file that they don't know.
const NOT_SAID: [&str; 9] = [
    "application/octet-stream",
    "binary/octet-stream",
    "application/x-octet-stream",
    "application/unknown",
    "application/x-unknown",
    "application/force-download",
    "application/download",
    "application/x-download",
    "unknown/unknown",
];

/// What phones show or play inside of a chat, so that its bytes must be what they are called.
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

/// Types that many files of other types are made of: a name, or a server, may know better.
const VAGUE: [&str; 7] = [
    UNKNOWN,
    "application/zip",
    "application/gzip",
    "application/x-ole-storage",
    "application/xml",
    "text/plain",
    "text/xml",
];

/// A MIME type as somebody said it, in small letters and without its parameters; nothing if it says nothing.
pub fn said(text: &str) -> Result<Option<String>, NotTaken> {
    let bare = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_token = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    match bare.split_once('/') {
        Some((kind, name)) if is_token(kind) && is_token(name) && bare.len() <= MAX_MIMETYPE => {}
        _ => return Err(NotTaken::Invalid("`media.mimetype` is not a MIME type, as image/jpeg".into())),
    }
    Ok((!NOT_SAID.contains(&bare.as_str())).then_some(bare))
}

/// The name by which a type is known here.
pub fn canonical(mimetype: &str) -> &str {
    match mimetype {
        "image/jpg" | "image/pjpeg" => "image/jpeg",
        "image/x-png" => "image/png",
        "image/x-bmp" | "image/x-ms-bmp" => "image/bmp",
        "image/x-icon" => "image/vnd.microsoft.icon",
        "audio/mp3" | "audio/x-mp3" | "audio/x-mpeg" | "audio/mpeg3" | "audio/x-mpeg-3" => "audio/mpeg",
        "audio/m4a" | "audio/x-m4a" | "audio/x-mp4" => "audio/mp4",
        "audio/x-aac" | "audio/aacp" | "audio/x-hx-aac-adts" => "audio/aac",
        "audio/x-amr" | "audio/amr-nb" => "audio/amr",
        "audio/x-wav" | "audio/wave" | "audio/vnd.wave" | "audio/x-pn-wav" => "audio/wav",
        "audio/x-flac" => "audio/flac",
        "audio/x-aiff" | "audio/aif" => "audio/aiff",
        "application/ogg" | "audio/opus" | "audio/vorbis" | "audio/x-ogg" => "audio/ogg",
        "video/x-m4v" | "video/m4v" | "application/mp4" => "video/mp4",
        "video/3gp" | "video/3gpp2" => "video/3gpp",
        "audio/3gpp2" => "audio/3gpp",
        "video/avi" | "video/msvideo" | "video/vnd.avi" => "video/x-msvideo",
        "video/matroska" => "video/x-matroska",
        "audio/matroska" => "audio/x-matroska",
        "application/x-pdf" => "application/pdf",
        "application/x-zip-compressed" | "application/x-zip" => "application/zip",
        "application/x-gzip" => "application/gzip",
        other => other,
    }
}

/// The container that a type is kept in, where several types share one.
fn container(canonical: &str) -> Option<&'static str> {
    Some(match canonical {
        // What is in it, its tracks tell. AAC is what most of these recordings hold.
        "video/mp4" | "audio/mp4" | "video/3gpp" | "audio/3gpp" | "video/quicktime" | "audio/aac" => "iso",
        "video/webm" | "audio/webm" | "video/x-matroska" | "audio/x-matroska" => "matroska",
        "audio/ogg" | "video/ogg" => "ogg",
        "image/heif" | "image/heic" | "image/heif-sequence" | "image/heic-sequence" | "image/avif" => "heif",
        _ => return None,
    })
}

/// Whether a phone shows or plays this inside of a chat.
pub fn is_shown(mimetype: &str) -> bool {
    SHOWN.contains(&canonical(mimetype))
}

/// Whether files of many types are of this type.
pub fn is_vague(mimetype: &str) -> bool {
    VAGUE.contains(&canonical(mimetype))
}

fn is_media(mimetype: &str) -> bool {
    ["image/", "video/", "audio/"].iter().any(|family| mimetype.starts_with(family))
}

/// Whether bytes that were found to be one thing may be called another: if not, the other side's phone would be misled.
pub fn agree(found: Option<&str>, called: &str) -> bool {
    let (found, called) = (found.map(canonical), canonical(called));
    let Some(found) = found else { return !SHOWN.contains(&called) };
    if found == called {
        return true;
    }
    // ADTS, as raw AAC is called, is no such container: it agrees with its own name only.
    if found != "audio/aac" && container(found).is_some_and(|one| container(called) == Some(one)) {
        return true;
    }
    if SHOWN.contains(&called) || SHOWN.contains(&found) || called == "application/pdf" {
        return false;
    }
    match (is_media(found), is_media(called)) {
        // Raw photos are TIFF, for example.
        (true, true) => found.split('/').next() == called.split('/').next(),
        (true, false) => false,
        // A page that says that there is no such file is what often comes instead of it.
        (false, _) if found == "text/html" => {
            let packed = called == "application/zip" || called.starts_with("application/vnd.openxmlformats");
            !packed && (!is_media(called) || called == "image/svg+xml")
        }
        (false, _) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_is_not_said() {
        for text in ["application/octet-stream", "binary/octet-stream", "Application/Octet-Stream; charset=binary"] {
            assert_eq!(said(text).unwrap(), None, "{text}");
        }
        assert_eq!(said(" Audio/WebM; codecs=opus").unwrap().as_deref(), Some("audio/webm"));
        for text in ["", "jpeg", "image/", "a b/c", "image/jpeg\r\nx: y", &format!("a/{}", "b".repeat(200))] {
            assert!(matches!(said(text), Err(NotTaken::Invalid(_))), "{text:?}");
        }
    }

    #[test]
    fn many_names_mean_the_same() {
        for (found, called) in [
            ("audio/x-wav", "audio/wav"),
            ("audio/x-wav", "audio/vnd.wave"),
            ("image/heif", "image/heic"),
            ("audio/x-flac", "audio/flac"),
            ("audio/x-aiff", "audio/aiff"),
            ("video/mp4", "video/x-m4v"),
            ("video/mp4", "audio/mp4"),
            ("video/mp4", "audio/aac"),
            ("video/quicktime", "video/mp4"),
            ("video/x-msvideo", "video/avi"),
            ("video/x-matroska", "video/matroska"),
            ("video/webm", "audio/webm"),
            ("audio/ogg", "audio/opus"),
            ("image/tiff", "image/x-adobe-dng"),
            ("application/zip", "application/vnd.android.package-archive"),
            ("application/pdf", "application/illustrator"),
            ("text/html", "text/plain"),
            // As many programs write their tables.
            ("text/html", "application/vnd.ms-excel"),
            ("text/xml", "image/svg+xml"),
        ] {
            assert!(agree(Some(found), called), "{found} is called {called}");
        }
        assert!(agree(None, "application/pdf") && agree(None, "text/csv"));
    }

    #[test]
    fn what_would_mislead_a_phone_is_a_contradiction() {
        for (found, called) in [
            (None, "image/jpeg"),
            (None, "audio/mpeg"),
            (Some("image/png"), "image/jpeg"),
            (Some("application/pdf"), "video/mp4"),
            (Some("image/png"), "application/pdf"),
            (Some("text/html"), "application/pdf"),
            (Some("application/zip"), "application/pdf"),
            (Some("text/html"), "image/heic"),
            (Some("text/html"), "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
            (Some("audio/aac"), "video/mp4"),
            (Some("video/x-msvideo"), "audio/wav"),
            (Some("video/webm"), "video/mp4"),
        ] {
            assert!(!agree(found, called), "{found:?} is called {called}");
        }
    }
}
