//! What a message shows of the first link in it: the page's title, its description and a small picture, as the page itself
//! says them (Open Graph, <https://ogp.me>, or plain HTML).
//!
//! The rules for URLs are those of media: public addresses only, on every hop, and no tenant's proxy. It never costs a
//! message: whatever goes wrong, there is no preview.

use std::{borrow::Cow, time::Duration};

use encoding_rs::{Encoding, UTF_8};
use futures_util::StreamExt;
use html5gum::{DefaultEmitter, StartTag, Token, Tokenizer};
use linkify::{LinkFinder, LinkKind};
use reqwest::Url;
use tokio::time::{Instant, timeout_at};

use crate::{
    media::{fetch::Fetched, shelf::MediaStore},
    model::{content::LinkPreview, tenant::TenantId},
};

/// How long the page and its picture may take together.
pub const LINK_PREVIEW_LIMIT: Duration = Duration::from_secs(5);
/// How much of a page is read, in bytes: what it says of itself stands at its beginning.
const PAGE: usize = 512 * 1024;
/// The most bytes of a picture.
const PICTURE: u64 = 4 * 1024 * 1024;
/// The longest title, in characters.
const TITLE: usize = 256;
/// The longest description, in characters.
const DESCRIPTION: usize = 1024;
/// How many bytes of a page are looked through for its character set, as browsers do.
const CHARSET_IN: usize = 1024;

/// The first link in a text.
pub fn first_link(text: &str) -> Option<&str> {
    let mut finder = LinkFinder::new();
    finder.kinds(&[LinkKind::Url]);
    let is_web = |link: &&str| {
        let scheme = link.split(':').next().unwrap_or_default();
        ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
    };
    finder.links(text).map(|link| link.as_str()).find(is_web)
}

impl MediaStore {
    /// What a message of this tenant shows of a link in it; nothing if that is not here at the deadline.
    pub async fn link_preview(&self, tenant: &TenantId, link: &str, deadline: Instant) -> Option<LinkPreview> {
        // Where on the page something stands is for whoever shows it.
        let url = link.split('#').next().unwrap_or_default();
        let page = self.links.fetch(tenant, url, u64::MAX, deadline).await.ok()?;
        let is_page = page.hint.as_deref().is_none_or(|kind| kind.contains("html"));
        if !is_page {
            return None;
        }
        let (base, hint) = (page.url(), page.hint.clone());
        let bytes = read(page, PAGE).await?;
        let parsed = tokio::task::spawn_blocking(move || Page::read(&decoded(&bytes, hint.as_deref())));
        let Page { title, description, picture } = timeout_at(deadline, parsed).await.ok()?.ok()?;
        let picture = picture.and_then(|picture| base.join(&picture).ok());
        let thumbnail = match picture {
            Some(picture) => timeout_at(deadline, self.picture(tenant, &picture, deadline)).await.ok().flatten(),
            None => None,
        };
        Some(LinkPreview { url: link.to_owned(), title: title?, description, thumbnail })
    }

    async fn picture(&self, tenant: &TenantId, url: &Url, deadline: Instant) -> Option<Vec<u8>> {
        let picture = self.links.fetch(tenant, url.as_str(), PICTURE, deadline).await.ok()?;
        let bytes = read(picture, PICTURE as usize + 1).await.filter(|bytes| bytes.len() as u64 <= PICTURE)?;
        self.previews.thumbnail(bytes).await
    }
}

/// The beginning of what comes, up to so many bytes; nothing if it breaks off or comes too late.
async fn read(fetched: Fetched, most: usize) -> Option<Vec<u8>> {
    let (mut bytes, mut coming) = (Vec::new(), std::pin::pin!(fetched.bytes()));
    while let Some(part) = coming.next().await {
        bytes.extend_from_slice(&part.ok()?);
        if bytes.len() >= most {
            bytes.truncate(most);
            break;
        }
    }
    Some(bytes)
}

/// The page as text, by the character set that the server or the page names.
fn decoded<'p>(bytes: &'p [u8], hint: Option<&str>) -> Cow<'p, str> {
    let named = |text: &str| {
        let at = text.to_ascii_lowercase().find("charset=")? + "charset=".len();
        let label = text[at..].trim_start_matches(['"', '\'', ' ']);
        let end = label.find(|c: char| !c.is_ascii_alphanumeric() && !"-_:.".contains(c)).unwrap_or(label.len());
        Encoding::for_label(&label.as_bytes()[..end])
    };
    let head = &bytes[..bytes.len().min(CHARSET_IN)];
    let encoding = hint.and_then(named).or_else(|| named(&String::from_utf8_lossy(head)));
    // A byte order mark counts for more than both.
    encoding.unwrap_or(UTF_8).decode(bytes).0
}

/// What a page says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Page {
    title: Option<String>,
    description: Option<String>,
    picture: Option<String>,
}

impl Page {
    fn read(html: &str) -> Self {
        let mut emitter = DefaultEmitter::default();
        // What scripts and styles hold is no markup.
        emitter.naively_switch_states(true);
        let (mut page, mut plain, mut in_title) = (Self::default(), Self::default(), false);
        for token in Tokenizer::new_with_emitter(html, emitter) {
            let Ok(token) = token;
            match token {
                Token::StartTag(tag) => match &tag.name[..] {
                    b"title" => in_title = plain.title.is_none(),
                    b"meta" => page.meta(&mut plain, &tag),
                    b"body" => break,
                    _ => {}
                },
                Token::String(text) if in_title => {
                    plain.title.get_or_insert_default().push_str(&String::from_utf8_lossy(&text));
                }
                Token::EndTag(tag) => match &tag.name[..] {
                    b"title" => in_title = false,
                    b"head" => break,
                    _ => {}
                },
                _ => {}
            }
        }
        let words = |own: Option<String>, plain: Option<String>, most: usize| {
            own.and_then(|text| line(&text, most)).or_else(|| line(&plain?, most))
        };
        Self {
            title: words(page.title, plain.title, TITLE),
            description: words(page.description, plain.description, DESCRIPTION),
            picture: page.picture.or(plain.picture),
        }
    }

    /// Takes in a property of the page: those that are meant for previews, and those of every page.
    fn meta(&mut self, plain: &mut Self, tag: &StartTag<()>) {
        let value =
            |name: &[u8]| tag.attributes.get(name).map(|value| String::from_utf8_lossy(value).trim().to_owned());
        let Some(content) = value(b"content").filter(|content| !content.is_empty()) else { return };
        let Some(name) = value(b"property").or_else(|| value(b"name")) else { return };
        let field = match name.to_ascii_lowercase().as_str() {
            "og:title" => &mut self.title,
            "og:description" => &mut self.description,
            "og:image" | "og:image:url" | "og:image:secure_url" => &mut self.picture,
            "twitter:title" => &mut plain.title,
            "description" | "twitter:description" => &mut plain.description,
            "twitter:image" => &mut plain.picture,
            _ => return,
        };
        field.get_or_insert(content);
    }
}

/// A text in one line, and not too long; nothing if it says nothing.
fn line(text: &str, most: usize) -> Option<String> {
    let words: Vec<_> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let line: String = words.join(" ").chars().take(most).collect();
    Some(line).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_link_ends_where_people_see_its_end() {
        for (text, link) in [
            ("See https://example.com/a?b=c, please", Some("https://example.com/a?b=c")),
            ("(https://example.com/a_(b))", Some("https://example.com/a_(b)")),
            ("mailto:ana@example.com ftp://example.com HTTPS://Example.com/x.", Some("HTTPS://Example.com/x")),
            ("two: http://one.example http://two.example", Some("http://one.example")),
            ("https://exämple.com/ä", Some("https://exämple.com/ä")),
            ("example.com www.example.com", None),
            ("https://", None),
            ("", None),
        ] {
            assert_eq!(first_link(text), link, "{text}");
        }
    }

    fn page(html: &str) -> [Option<String>; 3] {
        let Page { title, description, picture } = Page::read(html);
        [title, description, picture]
    }

    fn said(title: &str, description: &str, picture: &str) -> [Option<String>; 3] {
        [title, description, picture].map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()))
    }

    #[test]
    fn what_is_meant_for_previews_comes_before_what_every_page_has() {
        let html = "<!doctype html><html><head><script>var a = '<title>no</title>'</script>\n\
                    <title>\n  Tom &amp; Jerry </title><meta name=\"description\" content=\"Plain\">\
                    <meta property='og:title' content='A &quot;cup&quot;'><META NAME=og:description CONTENT='Of\n tea'>\
                    <meta property=\"og:image\" content=\"/cup.jpg\"><meta property=\"og:image\" content=\"/other.jpg\">\
                    </head><body><title>late</title></body>";
        assert_eq!(page(html), said("A \"cup\"", "Of tea", "/cup.jpg"));
        let plain = "<title>\n  Tom &amp; Jerry </title><meta name=\"description\" content=\"Plain\"><p>";
        assert_eq!(page(plain), said("Tom & Jerry", "Plain", ""));
        let empty =
            "<title> </title><meta property=\"og:title\" content=\" \"><meta content=a><svg><title>x</title></svg>";
        assert_eq!(page(empty), said("", "", ""));
    }

    #[test]
    fn a_page_is_read_in_its_own_character_set() {
        let latin = b"<meta charset=\"iso-8859-1\"><title>Caf\xe9</title>";
        assert_eq!(page(&decoded(latin, None))[0].as_deref(), Some("Café"));
        assert_eq!(
            page(&decoded(b"<title>Caf\xe9</title>", Some("text/html; charset=windows-1252")))[0].as_deref(),
            Some("Café")
        );
        let sjis = b"<title>\x93\xfa\x96{</title>";
        assert_eq!(page(&decoded(sjis, Some("text/html;charset=Shift_JIS")))[0].as_deref(), Some("日本"));
        assert_eq!(
            page(&decoded("<title>é</title>".as_bytes(), Some("text/html; charset=nonsense")))[0].as_deref(),
            Some("é")
        );
        let marked = [b"\xef\xbb\xbf<meta charset=latin1>".as_slice(), "<title>é</title>".as_bytes()].concat();
        assert_eq!(page(&decoded(&marked, None))[0].as_deref(), Some("é"));
    }

    #[test]
    fn nothing_is_longer_than_it_may_be() {
        let long = "ä ".repeat(5_000);
        let html = format!("<title>{long}</title><meta name=description content='{long}'>");
        let [title, description, _] = page(&html);
        assert_eq!(title.unwrap().chars().count(), TITLE);
        assert_eq!(description.unwrap().chars().count(), DESCRIPTION);
    }

    proptest! {
        #[test]
        fn any_page_is_read(bytes in prop::collection::vec(any::<u8>(), 0..400), html in "(<meta |<title>|og:title|content=|'|\"|>|<|&|;|.){0,60}") {
            let _ = page(&decoded(&bytes, None));
            let _ = page(&html);
            let _ = first_link(&html);
        }
    }
}
