//! What a ZIP archive is more than that: documents, books and apps are archives, told apart by what is in them. Only the
//! names are read, from the directory at the end (APPNOTE 6.3.10, 4.3.12 and 4.3.16), and the first file where it is there
//! to say what the archive is (OpenDocument 1.3 part 2, 3.3; EPUB 3.3, 4.2.3).

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use crate::media::mime;

/// How long the end of the directory is, without its comment.
const END: u64 = 22;
/// How long a comment may be.
const COMMENT: u64 = 65_535;
/// How many names are read.
const MAX_NAMES: usize = 4_096;
/// The longest name that is looked at.
const MAX_NAME: usize = 256;

/// The MIME type of an archive, if it is more than an archive.
pub fn mimetype(file: &mut (impl Read + Seek)) -> Option<String> {
    said(file).ok().flatten().or_else(|| told(file).ok().flatten().map(str::to_owned))
}

/// What its first file says, if that is there for it: stored as it is, under this name.
fn said(file: &mut (impl Read + Seek)) -> io::Result<Option<String>> {
    file.rewind()?;
    let head = bytes::<30>(file)?;
    let (is_stored, length, name) = (short(&head, 8) == 0, long(&head, 18), short(&head, 26));
    if !head.starts_with(b"PK\x03\x04") || !is_stored || name != 8 || &bytes::<8>(file)? != b"mimetype" {
        return Ok(None);
    }
    file.seek(SeekFrom::Current(short(&head, 28).into()))?;
    let mut text = Vec::new();
    // It may be said behind the file how long it is: then the next file's head ends it.
    file.take(if length == 0 { 128 } else { length.min(128).into() }).read_to_end(&mut text)?;
    let text = text.split(|byte| *byte == b'P' || byte.is_ascii_whitespace()).next().unwrap_or_default();
    let text = std::str::from_utf8(text).ok().and_then(|text| mime::said(text).ok().flatten());
    Ok(text.filter(|text| !mime::is_shown(text)))
}

/// What the names of its files tell.
fn told(file: &mut (impl Read + Seek)) -> io::Result<Option<&'static str>> {
    let length = file.seek(SeekFrom::End(0))?;
    let from = length.saturating_sub(END + COMMENT);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(END + COMMENT).read_to_end(&mut tail)?;
    let Some(at) = tail.windows(END as usize).rposition(|end| end.starts_with(b"PK\x05\x06")) else { return Ok(None) };
    // The directory ends where its end begins, also if something stands before the archive.
    let Some(start) = (from + at as u64).checked_sub(long(&tail[at..], 12).into()) else { return Ok(None) };
    file.seek(SeekFrom::Start(start))?;
    let mut file = BufReader::new(file);
    let mut has = Has::default();
    for _ in 0..usize::from(short(&tail[at..], 10)).min(MAX_NAMES) {
        let head = bytes::<46>(&mut file)?;
        if !head.starts_with(b"PK\x01\x02") {
            break;
        }
        let mut name = vec![0; short(&head, 28).into()];
        file.read_exact(&mut name)?;
        has.note(&name[..name.len().min(MAX_NAME)]);
        file.seek_relative(i64::from(short(&head, 30)) + i64::from(short(&head, 32)))?;
    }
    Ok(has.mimetype())
}

/// Which names there are.
#[derive(Default)]
struct Has {
    types: bool,
    word: bool,
    excel: bool,
    binary_excel: bool,
    powerpoint: bool,
    visio: bool,
    macros: bool,
    android: bool,
    jar_inside: bool,
    manifest: bool,
}

impl Has {
    fn note(&mut self, name: &[u8]) {
        match name {
            b"[Content_Types].xml" => self.types = true,
            b"AndroidManifest.xml" => self.android = true,
            b"classes.jar" => self.jar_inside = true,
            b"META-INF/MANIFEST.MF" => self.manifest = true,
            b"xl/workbook.bin" => self.binary_excel = true,
            _ => {}
        }
        self.word |= name.starts_with(b"word/");
        self.excel |= name.starts_with(b"xl/");
        self.powerpoint |= name.starts_with(b"ppt/");
        self.visio |= name.starts_with(b"visio/");
        self.macros |= name.ends_with(b"/vbaProject.bin");
    }

    fn mimetype(&self) -> Option<&'static str> {
        Some(match self {
            Self { types: true, word: true, macros: true, .. } => "application/vnd.ms-word.document.macroenabled.12",
            Self { types: true, word: true, .. } => {
                "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
            }
            Self { types: true, binary_excel: true, .. } => "application/vnd.ms-excel.sheet.binary.macroenabled.12",
            Self { types: true, excel: true, macros: true, .. } => "application/vnd.ms-excel.sheet.macroenabled.12",
            Self { types: true, excel: true, .. } => {
                "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
            }
            Self { types: true, powerpoint: true, macros: true, .. } => {
                "application/vnd.ms-powerpoint.presentation.macroenabled.12"
            }
            Self { types: true, powerpoint: true, .. } => {
                "application/vnd.openxmlformats-officedocument.presentationml.presentation"
            }
            Self { types: true, visio: true, .. } => "application/vnd.ms-visio.drawing",
            Self { android: true, jar_inside: false, .. } => "application/vnd.android.package-archive",
            Self { manifest: true, .. } => "application/java-archive",
            _ => return None,
        })
    }
}

fn bytes<const N: usize>(file: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    /// An archive of these files, stored as they are.
    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let (mut bytes, mut directory) = (Vec::new(), Vec::new());
        for (name, content) in files {
            let (at, size) = (bytes.len() as u32, (content.len() as u32).to_le_bytes());
            let common = [&[20, 0, 0, 0, 0, 0][..], &[0; 8], &size, &size, &(name.len() as u16).to_le_bytes(), &[0, 0]];
            bytes.extend([b"PK\x03\x04", &common.concat()[..], name.as_bytes(), content.as_bytes()].concat());
            directory.extend(
                [b"PK\x01\x02\x14\0", &common.concat()[..], &[0; 10], &at.to_le_bytes(), name.as_bytes()].concat(),
            );
        }
        let (count, size) = ((files.len() as u16).to_le_bytes(), (directory.len() as u32).to_le_bytes());
        let at = (bytes.len() as u32).to_le_bytes();
        [bytes, directory, [b"PK\x05\x06\0\0\0\0", &count[..], &count, &size, &at, &[0, 0]].concat()].concat()
    }

    fn of(names: &[&str]) -> Option<String> {
        let files: Vec<_> = names.iter().map(|name| (*name, "x")).collect();
        mimetype(&mut Cursor::new(archive(&files)))
    }

    #[test]
    fn what_is_in_it_tells_what_it_is() {
        const OFFICE: &str = "application/vnd.openxmlformats-officedocument.";
        for (names, expected) in [
            // In the order of python-docx, and in that of LibreOffice.
            (
                vec![
                    "[Content_Types].xml",
                    "_rels/.rels",
                    "docProps/core.xml",
                    "customXml/item1.xml",
                    "word/document.xml",
                ],
                Some(format!("{OFFICE}wordprocessingml.document")),
            ),
            (
                vec![
                    "_rels/.rels",
                    "docProps/app.xml",
                    "word/_rels/document.xml.rels",
                    "word/document.xml",
                    "[Content_Types].xml",
                ],
                Some(format!("{OFFICE}wordprocessingml.document")),
            ),
            (vec!["[Content_Types].xml", "xl/workbook.xml"], Some(format!("{OFFICE}spreadsheetml.sheet"))),
            (vec!["ppt/presentation.xml", "[Content_Types].xml"], Some(format!("{OFFICE}presentationml.presentation"))),
            (
                vec!["[Content_Types].xml", "xl/workbook.xml", "xl/vbaProject.bin"],
                Some("application/vnd.ms-excel.sheet.macroenabled.12".into()),
            ),
            (
                vec!["META-INF/MANIFEST.MF", "AndroidManifest.xml", "classes.dex"],
                Some("application/vnd.android.package-archive".into()),
            ),
            (vec!["META-INF/MANIFEST.MF", "Main.class"], Some("application/java-archive".into())),
            (vec!["AndroidManifest.xml", "classes.jar"], None),
            (vec!["word/notes.txt"], None),
            (vec!["a.txt", "b.txt"], None),
            (vec![], None),
        ] {
            assert_eq!(of(&names), expected, "{names:?}");
        }
    }

    #[test]
    fn what_it_says_of_itself_counts() {
        for said in ["application/vnd.oasis.opendocument.text", "application/epub+zip"] {
            let whole = archive(&[("mimetype", said), ("content.xml", "x")]);
            assert_eq!(mimetype(&mut Cursor::new(whole)).as_deref(), Some(said));
        }
        for lie in ["image/png", "no type", ""] {
            assert_eq!(mimetype(&mut Cursor::new(archive(&[("mimetype", lie), ("a", "x")]))), None, "{lie}");
        }
    }

    #[test]
    fn something_may_stand_around_it() {
        let whole = archive(&[("[Content_Types].xml", "x"), ("word/document.xml", "x")]);
        let around = [&b"#!/bin/sh\n"[..], &whole, b"a comment"].concat();
        assert!(mimetype(&mut Cursor::new(around)).unwrap().ends_with("wordprocessingml.document"));
        for cut in 0..whole.len() {
            let _ = mimetype(&mut Cursor::new(&whole[..cut]));
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_there_ends(noise in prop::collection::vec(any::<u8>(), 0..60), at in 0..400usize) {
            let mut whole = archive(&[("mimetype", "application/epub+zip"), ("word/document.xml", "x"), ("xl/a", "y")]);
            let at = at.min(whole.len());
            let until = (at + noise.len()).min(whole.len());
            whole.splice(at..until, noise);
            let _ = mimetype(&mut Cursor::new(whole));
        }
    }
}
