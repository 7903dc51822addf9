//! What files are called: by whoever sends them, in a header or in a URL, and which type a name stands for.

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::media::mime;

/// The longest name, in characters.
const MAX_NAME: usize = 255;
/// The longest ending of a name that says what the file is, in letters and digits.
const MAX_EXTENSION: usize = 10;

/// The last part of a name, of what may be a path, without what no name should hold; nothing if that is nothing.
pub fn plain(name: &str) -> Option<String> {
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = name.chars().filter(|character| !character.is_control()).take(MAX_NAME).collect();
    Some(name.trim().to_owned()).filter(|name| !name.is_empty() && name != "." && name != "..")
}

/// The name in a `Content-Disposition` (RFC 6266, RFC 7578): `filename*` (RFC 8187) counts before `filename`, and in that
/// stand the encodings that programs put there.
pub fn from_disposition(header: &[u8]) -> Option<String> {
    // Some write the letters as they are, in either of two ways.
    let header = String::from_utf8(header.to_vec()).unwrap_or_else(|_| latin(header));
    let parameters = parameters(&header);
    let value = |wanted: &str| parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    value("filename*")
        .and_then(extended)
        .or_else(|| value("filename").map(|value| words(value).unwrap_or_else(|| unquoted(value))))
        .and_then(|name| plain(&name))
}

/// The name at the end of a URL's path, if one stands there.
pub fn from_url(url: &str) -> Option<String> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let (_, behind) = path.split_once("://")?;
    let (_, path) = behind.split_once('/')?;
    let name = path.rsplit('/').next()?;
    plain(&String::from_utf8(percent_decoded(name)).unwrap_or_else(|_| name.to_owned()))
}

/// Whether a name ends as names of files do.
pub fn extension(name: &str) -> Option<&str> {
    let (before, extension) = name.rsplit_once('.')?;
    let fits = (1..=MAX_EXTENSION).contains(&extension.len()) && extension.bytes().all(|b| b.is_ascii_alphanumeric());
    let is_one = fits && !before.is_empty() && extension.bytes().any(|byte| byte.is_ascii_alphabetic());
    is_one.then_some(extension)
}

/// The name with the ending of its type, if it has none.
pub fn with_extension(name: String, mimetype: &str) -> String {
    let bare = mimetype.split(';').next().unwrap_or_default();
    let known = match bare {
        _ if bare == mime::UNKNOWN || extension(&name).is_some() => None,
        "text/vcard" => Some("vcf"),
        bare => mime2ext::mime2ext(bare),
    };
    match known {
        Some(extension) if name.chars().count() + 1 + extension.len() <= MAX_NAME => format!("{name}.{extension}"),
        _ => name,
    }
}

/// The type of a document whose bytes were found to be of this type, if its name says more. What phones show or play is
/// never one only by its name.
pub fn better_type(name: &str, mimetype: &str) -> Option<&'static str> {
    if !mime::is_vague(mimetype) {
        return None;
    }
    let by_name = match extension(name)?.to_ascii_lowercase().as_str() {
        "vcf" => "text/vcard",
        extension => mime_guess::from_ext(extension).first_raw()?,
    };
    let found = (![mime::UNKNOWN, "text/plain"].contains(&mimetype)).then_some(mimetype);
    (!mime::is_shown(by_name) && by_name != mime::UNKNOWN && mime::agree(found, by_name)).then_some(by_name)
}

/// The parameters of a header: their names in small letters, and their values without quotes.
fn parameters(header: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let mut rest = header.split_once(';').map_or("", |(_, rest)| rest);
    while let Some((name, behind)) = rest.split_once('=') {
        // A parameter without a value may stand before this one.
        let name = name.rsplit(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let behind = behind.trim_start();
        let value;
        (value, rest) = match behind.strip_prefix('"') {
            Some(quoted) => in_quotes(quoted),
            None => {
                let (value, rest) = behind.split_once(';').unwrap_or((behind, ""));
                (value.trim().to_owned(), rest)
            }
        };
        parameters.push((name, value));
    }
    parameters
}

/// What stands before the closing quote, and what behind it. A backslash takes the meaning from a quote and from another
/// backslash; before anything else it is itself, as in the paths that some send.
fn in_quotes(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, text[at + 1..].trim_start().strip_prefix(';').unwrap_or(&text[at + 1..])),
            '\\' => match characters.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                Some((_, escaped)) => value.push(escaped),
                None => value.push('\\'),
            },
            _ => value.push(character),
        }
    }
    (value, "")
}

/// A value of RFC 8187: a character set, a language, and the letters.
fn extended(value: &str) -> Option<String> {
    let (charset, rest) = value.trim_matches('"').split_once('\'')?;
    let (_, letters) = rest.split_once('\'')?;
    in_charset(charset, percent_decoded(letters))
}

/// A value of encoded words (RFC 2047), if it is nothing else.
fn words(value: &str) -> Option<String> {
    let mut text = String::new();
    for word in value.split_whitespace() {
        let mut parts = word.strip_prefix("=?")?.strip_suffix("?=")?.splitn(3, '?');
        let (charset, encoding, letters) = (parts.next()?, parts.next()?, parts.next()?);
        let bytes = match encoding {
            "B" | "b" => BASE64_STANDARD.decode(letters).ok()?,
            "Q" | "q" => percent_decoded(&letters.replace('_', " ").replace('=', "%")),
            _ => return None,
        };
        // A language may stand behind the character set.
        text.push_str(&in_charset(charset.split('*').next().unwrap_or_default(), bytes)?);
    }
    Some(text).filter(|text| !text.is_empty())
}

/// A plain `filename`. Browsers and Node write three characters as `%22`, `%0D` and `%0A`, and no others; aiohttp writes
/// all that are not letters or digits in that way, and then none of them is left.
fn unquoted(value: &str) -> String {
    let is_quoted = value.contains('%') && value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    match is_quoted.then(|| String::from_utf8(percent_decoded(value))) {
        Some(Ok(name)) => name,
        _ => value.replace("%22", "\"").replace("%0D", "").replace("%0A", ""),
    }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&byte, behind)) = rest.split_first() {
        let digits = (byte == b'%').then(|| behind.get(..2)).flatten();
        let hex = |digit: u8| char::from(digit).to_digit(16);
        match digits.and_then(|digits| Some(hex(digits[0])? * 16 + hex(digits[1])?)) {
            Some(decoded) => {
                bytes.push(decoded as u8);
                rest = &behind[2..];
            }
            None => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    bytes
}

fn in_charset(charset: &str, bytes: Vec<u8>) -> Option<String> {
    match charset.to_ascii_lowercase().as_str() {
        "utf-8" | "utf8" | "us-ascii" => String::from_utf8(bytes).ok(),
        "iso-8859-1" | "latin1" | "windows-1252" => Some(latin(&bytes)),
        _ => None,
    }
}

fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_programs_write_them() {
        for (header, name) in [
            ("attachment; filename=report.pdf", "report.pdf"),
            ("attachment; filename=\"two words.pdf\"; size=3", "two words.pdf"),
            // RFC 6266: the one with the star counts, wherever it stands.
            ("attachment; filename=\"EURO rates\"; filename*=utf-8''%e2%82%ac%20rates.pdf", "€ rates.pdf"),
            ("attachment; filename*=UTF-8'de'%C3%9Cbersicht.pdf; filename=x.pdf", "Übersicht.pdf"),
            ("attachment; filename*=iso-8859-1''%FCber.pdf", "über.pdf"),
            // .NET.
            (
                "form-data; name=media; filename=\"=?utf-8?B?w5xiZXJzaWNodC5wZGY=?=\"; filename*=utf-8''%C3%9Cbersicht.pdf",
                "Übersicht.pdf",
            ),
            ("form-data; name=media; filename=\"=?utf-8?B?w5xiZXJzaWNodC5wZGY=?=\"", "Übersicht.pdf"),
            ("attachment; filename=\"=?UTF-8?Q?=C3=9Cber_uns.pdf?=\"", "Über uns.pdf"),
            ("attachment; filename=\"=?utf-8?B?w5xi?= =?utf-8?B?ZXIucGRm?=\"", "Über.pdf"),
            // aiohttp.
            ("form-data; name=\"media\"; filename=\"%C3%9Cbersicht%202025.pdf\"", "Übersicht 2025.pdf"),
            ("form-data; name=\"media\"; filename=\"100%25.pdf\"", "100%.pdf"),
            // Node, browsers and httpx.
            ("form-data; name=\"media\"; filename=\"Übersicht %22neu%22.pdf\"", "Übersicht \"neu\".pdf"),
            ("form-data; name=\"media\"; filename=\"50%20off now.pdf\"", "50%20off now.pdf"),
            ("form-data; name=\"media\"; filename=\"back\\\\slash.pdf\"", "slash.pdf"),
            // Go and older curls.
            ("form-data; name=\"media\"; filename=\"say \\\"hi\\\".pdf\"", "say \"hi\".pdf"),
            ("form-data; name=\"media\"; filename=\"a;b=c.pdf\"", "a;b=c.pdf"),
            ("form-data; name=\"media\"; filename=\"C:\\photos\\one.png\"", "one.png"),
            ("form-data; name=\"media\"; filename=\"../../etc/passwd\"", "passwd"),
            ("attachment; filename*=utf-8''..%2F..%2Fetc%2Fpasswd", "passwd"),
            ("ATTACHMENT; odd; FileName = a.pdf ; x", "a.pdf"),
            // What can't be read is passed over.
            ("attachment; filename*=utf-16''%00; filename=b.pdf", "b.pdf"),
            ("attachment; filename=\"=?x?y?z?=\"", "=?x?y?z?="),
            ("attachment; filename=\"open", "open"),
        ] {
            assert_eq!(from_disposition(header.as_bytes()).as_deref(), Some(name), "{header}");
        }
        assert_eq!(from_disposition(b"attachment; filename=\xfcber.pdf").as_deref(), Some("über.pdf"));
        for header in
            ["inline", "attachment; filename=", "attachment; filename=\"..\"", "form-data; name=\"media\"", ""]
        {
            assert_eq!(from_disposition(header.as_bytes()), None, "{header}");
        }
    }

    #[test]
    fn urls_name_files() {
        for (url, name) in [
            ("https://host/a/report.pdf?X-Amz-Signature=a/b", Some("report.pdf")),
            ("https://host/%C3%9Cbersicht%202025.pdf#page=2", Some("Übersicht 2025.pdf")),
            ("https://host/a%2Fb.pdf", Some("b.pdf")),
            ("https://host/%FC.pdf", Some("%FC.pdf")),
            ("https://host/a/", None),
            ("https://host", None),
            ("https://host/..", None),
        ] {
            assert_eq!(from_url(url).as_deref(), name, "{url}");
        }
    }

    #[test]
    fn names_end_as_their_type_does() {
        for (name, mimetype, expected) in [
            ("report", "application/pdf", "report.pdf"),
            ("report.pdf", "text/html", "report.pdf"),
            ("v1.2", "application/pdf", "v1.2.pdf"),
            ("Invoice no. 12", "application/pdf", "Invoice no. 12.pdf"),
            ("archive.7z", "application/pdf", "archive.7z"),
            (".profile", "text/plain", ".profile.txt"),
            ("table", "text/csv", "table.csv"),
            ("photo", "image/heic", "photo.heic"),
            ("report", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", "report.docx"),
            ("app", "application/vnd.android.package-archive", "app.apk"),
            ("card", "text/vcard", "card.vcf"),
            ("voice", "audio/ogg; codecs=opus", "voice.oga"),
            ("data", "application/octet-stream", "data"),
            ("data", "a/b", "data"),
        ] {
            assert_eq!(with_extension(name.into(), mimetype), expected);
        }
        let long = "x".repeat(MAX_NAME);
        assert_eq!(with_extension(long.clone(), "application/pdf"), long);
    }

    #[test]
    fn names_tell_types_where_bytes_do_not() {
        const OFFICE: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
        for (name, found, expected) in [
            ("a.csv", mime::UNKNOWN, Some("text/csv")),
            ("a.CSV", "text/plain", Some("text/csv")),
            ("a.txt", mime::UNKNOWN, Some("text/plain")),
            ("a.json", mime::UNKNOWN, Some("application/json")),
            ("a.vcf", mime::UNKNOWN, Some("text/vcard")),
            ("a.ics", mime::UNKNOWN, Some("text/calendar")),
            ("a.md", mime::UNKNOWN, Some("text/markdown")),
            ("a.svg", "text/xml", Some("image/svg+xml")),
            ("a.svg", mime::UNKNOWN, Some("image/svg+xml")),
            ("a.docx", "application/zip", Some(OFFICE)),
            ("a.apk", "application/zip", Some("application/vnd.android.package-archive")),
            ("a.doc", "application/x-ole-storage", Some("application/msword")),
            ("a.pdf", mime::UNKNOWN, Some("application/pdf")),
            // Bytes that were found to be something are that.
            ("a.csv", "application/pdf", None),
            ("a.pdf", "application/zip", None),
            ("a.pdf", "text/html", None),
            ("a.jpg", mime::UNKNOWN, None),
            ("a.mp3", mime::UNKNOWN, None),
            ("a", mime::UNKNOWN, None),
            ("a.nothing", mime::UNKNOWN, None),
        ] {
            assert_eq!(better_type(name, found), expected, "{name}, {found}");
        }
    }
}
