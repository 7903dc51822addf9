//! What media is sent as: its tracks tell it, its name, or what it is called, as long as that misleads no phone.

use axum::http::StatusCode as Status;
use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    ffmpeg,
    harness::{BRUNO, World},
    media::{Form, paired, send_form},
    media_names::serve,
};

/// Sends bytes by base64, and returns what the phone shows, or the refusal.
async fn sent(world: &World, bytes: &[u8], mut body: Value) -> Result<Value, (u16, Value)> {
    body["to"] = json!(BRUNO);
    body["media"]["base64"] = BASE64_STANDARD.encode(bytes).into();
    let (status, answer) = world.service.tenant("acme").call(Method::POST, "/send", Some(body)).await;
    if status != Status::OK {
        return Err((status.as_u16(), answer));
    }
    let (shown, got) = world.until_file(BRUNO, &answer["id"]).await;
    assert!(got == bytes, "equal bytes: {shown}");
    Ok(shown)
}

#[tokio::test]
async fn tracks_decide_what_an_mp4_is() {
    if ffmpeg::is_missing() {
        return;
    }
    let world = paired(&[("BODY_LIMIT", "4000000")]).await;
    let tone = "-f lavfi -i sine -t 3 -c:a aac";
    let video = "-f lavfi -i testsrc=s=320x240:r=10 -t 4 -pix_fmt yuv420p";
    let turned = |by| format!("{video} v.mp4 && ffmpeg -v error -i v.mp4 -c copy -metadata:s:v rotate={by}");
    for (arguments, name, mimetype, expected) in [
        (tone, "a.mp4", Some("audio/mp4"), json!(["audio", "audio/mp4", 3, null, null])),
        (tone, "a.mp4", None, json!(["audio", "audio/mp4", 3, null, null])),
        (
            &format!("{tone} -movflags faststart"),
            "a.mp4",
            Some("video/mp4"),
            json!(["audio", "audio/mp4", 3, null, null]),
        ),
        (tone, "a.m4a", Some("audio/x-m4a"), json!(["audio", "audio/mp4", 3, null, null])),
        (tone, "a.3gp", None, json!(["audio", "audio/3gpp", 3, null, null])),
        (video, "a.mp4", None, json!(["video", "video/mp4", 4, 320, 240])),
        // Whatever it is called.
        (video, "a.mp4", Some("audio/mp4"), json!(["video", "video/mp4", 4, 320, 240])),
        (
            &format!("-f lavfi -i sine {video}"),
            "a.mp4",
            Some("video/x-m4v"),
            json!(["video", "video/mp4", 4, 320, 240]),
        ),
        (
            &format!("{video} -g 10 -movflags frag_keyframe+empty_moov"),
            "a.mp4",
            None,
            json!(["video", "video/mp4", 4, 320, 240]),
        ),
        (
            &format!("{tone} -t 4 -movflags frag_keyframe+empty_moov -frag_duration 100000"),
            "a.mp4",
            Some("audio/mp4"),
            json!(["audio", "audio/mp4", 4, null, null]),
        ),
        (&turned(90), "a.mp4", None, json!(["video", "video/mp4", 4, 240, 320])),
        (&turned(180), "a.mp4", None, json!(["video", "video/mp4", 4, 320, 240])),
        (&turned(270), "a.mp4", None, json!(["video", "video/mp4", 4, 240, 320])),
    ] {
        let bytes = ffmpeg::made(arguments, name);
        let shown = sent(&world, &bytes, json!({"media": {"mimetype": mimetype}})).await.unwrap();
        let media = &shown["media"];
        let told = json!([shown["kind"], media["mimetype"], media["seconds"], media["width"], media["height"]]);
        assert_eq!(told, expected, "{arguments} {name}");
        // The same as a form, with the name and the type that a browser gives to a recording.
        let part = format!("name=\"media\"; filename=\"{name}\"\r\nContent-Type: {}", mimetype.unwrap_or("video/mp4"));
        let form = Form::default().text("to", BRUNO).part(&part, &bytes);
        let request = world.service.request(Method::POST, "/send").header("X-Tenant-Id", "acme");
        let (status, answer) = crate::harness::answer(form.send_as(request)).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(world.until_file(BRUNO, &answer["id"]).await.0["kind"], expected[0], "{arguments} {name}");
    }
}

#[tokio::test]
async fn the_limit_is_that_of_what_the_tracks_tell() {
    if ffmpeg::is_missing() {
        return;
    }
    let world = paired(&[("MEDIA_MAX_AUDIO", "20000"), ("MEDIA_MAX_VIDEO", "100000")]).await;
    let audio = ffmpeg::made("-f lavfi -i anoisesrc=d=3 -c:a aac", "a.mp4");
    assert!((20_000..100_000).contains(&audio.len()));
    for mimetype in ["audio/mp4", "video/mp4"] {
        let (status, problem) = send_form(&world.service, &[("mimetype", mimetype)], "a.mp4", audio.clone()).await;
        assert_eq!((status, &problem["code"]), (413, &json!("media_too_large")), "{problem}");
        assert!(problem["message"].as_str().unwrap().contains("20000 bytes"), "{problem}");
    }
    assert_eq!(crate::media::files(&world.service), 0);
    let video = ffmpeg::made("-f lavfi -i testsrc=s=640x480:r=25 -t 4 -pix_fmt yuv420p", "a.mp4");
    assert!((20_000..100_000).contains(&video.len()), "{}", video.len());
    let (status, answer) = send_form(&world.service, &[("mimetype", "audio/mp4")], "a.mp4", video).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn a_video_plays_in_a_loop_if_it_is_asked_to() {
    if ffmpeg::is_missing() {
        return;
    }
    let world = paired(&[]).await;
    let video = ffmpeg::made("-f lavfi -i testsrc=s=64x48:r=10 -t 1 -pix_fmt yuv420p", "a.mp4");
    let shown = sent(&world, &video, json!({"gif": true, "message": "again"})).await.unwrap();
    assert_eq!(
        (&shown["kind"], &shown["media"]["gif"], &shown["text"]),
        (&json!("video"), &json!(true), &json!("again"))
    );
    let shown = sent(&world, &video, json!({})).await.unwrap();
    assert_eq!((&shown["kind"], shown["media"].get("gif")), (&json!("video"), None), "{shown}");
    let (status, answer) =
        send_form(&world.service, &[("gif", "true"), ("replyTo", "3EB0AA")], "a.mp4", video.clone()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(world.until_file(BRUNO, &answer["id"]).await.0["media"]["gif"], true);
    let moving = ffmpeg::made("-f lavfi -i testsrc=s=64x48:r=5 -t 1", "a.gif");
    let tone = ffmpeg::made("-f lavfi -i sine -t 1 -c:a aac", "a.mp4");
    for (bytes, with, code, word) in [
        (&moving, json!({"gif": true}), "media_type", "docs/conversion.md"),
        (&tone, json!({"gif": true}), "media_type", "`gif`"),
        (&video, json!({"gif": true, "document": true}), "invalid_content", "`gif`"),
    ] {
        let (_, problem) = sent(&world, bytes, with).await.unwrap_err();
        assert_eq!(problem["code"], code, "{problem}");
        assert!(problem["message"].as_str().unwrap().contains(word), "{problem}");
    }
    let (status, problem) = world
        .service
        .tenant("acme")
        .call(Method::POST, "/send", Some(json!({"to": BRUNO, "message": "x", "gif": true})))
        .await;
    assert_eq!((status.as_u16(), &problem["code"]), (400, &json!("invalid_content")), "{problem}");
    // It is another call than the one without.
    let keyed = |gif: bool| json!({"gif": gif, "idempotencyKey": "k"});
    sent(&world, &video, keyed(true)).await.unwrap();
    assert_eq!(sent(&world, &video, keyed(false)).await.unwrap_err().1["code"], "idempotency_conflict");
}

#[tokio::test]
async fn a_sticker_that_moves_says_so() {
    if ffmpeg::is_missing() {
        return;
    }
    let world = paired(&[]).await;
    let moving = ffmpeg::made("-f lavfi -i testsrc=s=512x512:r=5 -t 1 -loop 0 -c:v libwebp_anim", "a.webp");
    let still = ffmpeg::made("-f lavfi -i testsrc=s=512x512 -frames:v 1 -c:v libwebp", "a.webp");
    for (bytes, animated) in [(moving, Some(&json!(true))), (still, None)] {
        let shown = sent(&world, &bytes, json!({"sticker": true})).await.unwrap();
        let media = &shown["media"];
        assert_eq!(
            (&shown["kind"], media.get("animated"), &media["width"]),
            (&json!("sticker"), animated, &json!(512))
        );
    }
}

#[tokio::test]
async fn a_video_shows_its_cover() {
    if ffmpeg::is_missing() {
        return;
    }
    let world = paired(&[]).await;
    let with_cover = |cover: &str| {
        let folder = tempfile::TempDir::new().unwrap();
        ffmpeg::run(
            folder.path(),
            &format!(
                "ffmpeg -v error -f lavfi -i testsrc=s=64x48:r=10 -t 1 -pix_fmt yuv420p v.mp4
                 ffmpeg -v error -f lavfi -i testsrc=s=160x120 -frames:v 1 {cover}
                 ffmpeg -v error -i v.mp4 -i {cover} -map 0 -map 1 -c copy -disposition:v:1 attached_pic a.mp4"
            ),
        );
        std::fs::read(folder.path().join("a.mp4")).unwrap()
    };
    for cover in ["cover.jpg", "cover.png"] {
        let shown = sent(&world, &with_cover(cover), json!({})).await.unwrap();
        let media = &shown["media"];
        assert_eq!((&media["thumbnail"], &media["width"]), (&json!(true), &json!(64)), "{cover}: {shown}");
    }
    let bare = ffmpeg::made("-f lavfi -i testsrc=s=64x48:r=10 -t 1 -pix_fmt yuv420p", "a.mp4");
    assert_eq!(sent(&world, &bare, json!({})).await.unwrap()["media"]["thumbnail"], false);
}

/// A ZIP archive of these files, stored as they are, in this order.
pub fn zip(names: &[&str]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for name in names {
        let (name, content) = name.split_once('=').unwrap_or((name, "x"));
        let (at, size) = (bytes.len() as u32, (content.len() as u32).to_le_bytes());
        let common =
            [&[20, 0, 0, 0, 0, 0][..], &[0; 8], &size, &size, &(name.len() as u16).to_le_bytes(), &[0, 0]].concat();
        bytes.extend([b"PK\x03\x04", &common[..], name.as_bytes(), content.as_bytes()].concat());
        directory.extend([b"PK\x01\x02\x14\0", &common[..], &[0; 10], &at.to_le_bytes(), name.as_bytes()].concat());
    }
    let (count, size) = ((names.len() as u16).to_le_bytes(), (directory.len() as u32).to_le_bytes());
    let at = (bytes.len() as u32).to_le_bytes();
    [bytes, directory, [b"PK\x05\x06\0\0\0\0", &count[..], &count, &size, &at, &[0, 0]].concat()].concat()
}

/// The archives that are more than archives, with their names and types.
fn archives() -> Vec<(Vec<u8>, &'static str, &'static str)> {
    // In the order in which python-docx writes them, and LibreOffice.
    let python =
        zip(&["[Content_Types].xml", "_rels/.rels", "docProps/core.xml", "docProps/app.xml", "word/document.xml"]);
    let libre =
        zip(&["_rels/.rels", "docProps/core.xml", "docProps/app.xml", "word/document.xml", "[Content_Types].xml"]);
    let docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
    vec![
        (python, "a.docx", docx),
        (libre, "a.docx", docx),
        (
            zip(&["[Content_Types].xml", "ppt/presentation.xml"]),
            "a.pptx",
            "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        ),
        (
            zip(&["xl/workbook.xml", "[Content_Types].xml"]),
            "a.xlsx",
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        ),
        (
            zip(&["AndroidManifest.xml", "classes.dex", "META-INF/MANIFEST.MF"]),
            "a.apk",
            "application/vnd.android.package-archive",
        ),
        (
            zip(&["mimetype=application/vnd.oasis.opendocument.text", "content.xml"]),
            "a.odt",
            "application/vnd.oasis.opendocument.text",
        ),
        (zip(&["mimetype=application/epub+zip", "META-INF/container.xml"]), "a.epub", "application/epub+zip"),
        (zip(&["a.txt"]), "a.zip", "application/zip"),
    ]
}

#[tokio::test]
async fn the_type_of_a_document_comes_from_its_name() {
    let world = paired(&[]).await;
    let svg = b"<?xml version=\"1.0\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_vec();
    let mut documents = vec![
        (b"a;b\n".to_vec(), "a.csv", "text/csv"),
        (b"words\n".to_vec(), "a.txt", "text/plain"),
        (b"{}\n".to_vec(), "a.json", "application/json"),
        (b"BEGIN:VCARD\r\nEND:VCARD\r\n".to_vec(), "a.vcf", "text/vcard"),
        (b"BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n".to_vec(), "a.ics", "text/calendar"),
        (b"# words\n".to_vec(), "a.md", "text/markdown"),
        (svg.clone(), "a.svg", "image/svg+xml"),
        (b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_vec(), "a.svg", "image/svg+xml"),
    ];
    documents.extend(archives());
    for (bytes, name, expected) in documents {
        // By base64, with and without a type that says nothing.
        for mimetype in [None, Some("application/octet-stream")] {
            let body = json!({"media": {"filename": name, "mimetype": mimetype}});
            let shown = sent(&world, &bytes, body).await.unwrap();
            assert_eq!((&shown["kind"], &shown["media"]["mimetype"]), (&json!("document"), &json!(expected)), "{name}");
        }
        // As a form, with curl's default type.
        let part = format!("name=\"media\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream");
        let form = Form::default().text("to", BRUNO).part(&part, &bytes);
        let request = world.service.request(Method::POST, "/send").header("X-Tenant-Id", "acme");
        let (status, answer) = crate::harness::answer(form.send_as(request)).await;
        assert_eq!(status, 200, "{answer}");
        let (shown, _) = world.until_file(BRUNO, &answer["id"]).await;
        assert_eq!((&shown["media"]["mimetype"], &shown["media"]["filename"]), (&json!(expected), &json!(name)));
    }
    // An explicit type counts, and what the archive holds counts without a name.
    for (bytes, _, expected) in archives() {
        let shown = sent(&world, &bytes, json!({})).await.unwrap();
        assert_eq!(shown["media"]["mimetype"], expected);
        let shown = sent(&world, &bytes, json!({"media": {"mimetype": "application/x-own+zip"}})).await.unwrap();
        assert_eq!(shown["media"]["mimetype"], "application/x-own+zip");
    }
    // A name makes nothing what its bytes are not.
    let shown = sent(&world, b"words", json!({"media": {"filename": "a.jpg"}})).await.unwrap();
    assert_eq!((&shown["kind"], &shown["media"]["mimetype"]), (&json!("document"), &json!("application/octet-stream")));
    let shown = sent(&world, b"%PDF-1.7\n", json!({"media": {"filename": "a.csv"}})).await.unwrap();
    assert_eq!(shown["media"]["mimetype"], "application/pdf");
}

#[tokio::test]
async fn what_servers_call_their_bytes_counts_where_it_says_something() {
    let world = paired(&[("ALLOW_PRIVATE_TARGETS", "true")]).await;
    let acme = world.service.tenant("acme");
    for (said, bytes, path, expected) in [
        ("binary/octet-stream", &b"a;b\n"[..], "/a.csv?X-Amz-Signature=1", "text/csv"),
        ("application/octet-stream", b"a;b\n", "/x", "application/octet-stream"),
        ("text/plain; charset=utf-8", b"a;b\n", "/a.csv", "text/csv"),
        ("text/plain", b"a;b\n", "/x", "text/plain"),
        ("text/csv", b"a;b\n", "/a.txt", "text/csv"),
        ("image/svg+xml", b"<svg/>", "/x", "image/svg+xml"),
        (
            "application/zip",
            &zip(&["[Content_Types].xml", "word/document.xml"]),
            "/x",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ),
        ("image/jpeg", b"words", "/a.jpg", "application/octet-stream"),
    ] {
        let url = serve(&[("content-type", said)], bytes.to_vec()).await + path;
        let (status, answer) =
            acme.call(Method::POST, "/send", Some(json!({"to": BRUNO, "media": {"url": url}}))).await;
        assert_eq!(status, 200, "{said}: {answer}");
        let (shown, _) = world.until_file(BRUNO, &answer["id"]).await;
        assert_eq!(
            (&shown["kind"], &shown["media"]["mimetype"]),
            (&json!("document"), &json!(expected)),
            "{said} {path}"
        );
    }
}

#[tokio::test]
async fn only_what_would_mislead_a_phone_is_a_contradiction() {
    if ffmpeg::is_missing() {
        return;
    }
    let world = paired(&[]).await;
    let tone = |name| ffmpeg::made("-f lavfi -i sine -t 1", name);
    let picture = |name| ffmpeg::made("-f lavfi -i testsrc=s=64x48 -frames:v 1 -pix_fmt yuvj420p", name);
    let video = |name| ffmpeg::made("-f lavfi -i testsrc=s=64x48:r=10 -t 1 -pix_fmt yuv420p", name);
    let webm = ffmpeg::made("-f lavfi -i sine -t 1 -c:a libopus", "a.webm");
    let heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0\0\0".to_vec();
    for (bytes, called, kind) in [
        (tone("a.wav"), "audio/wav", "document"),
        (tone("a.wav"), "audio/x-wav", "document"),
        (tone("a.wav"), "audio/vnd.wave", "document"),
        (heic.clone(), "image/heic", "document"),
        (heic, "image/heif", "document"),
        (tone("a.flac"), "audio/flac", "document"),
        (tone("a.flac"), "audio/x-flac", "document"),
        (tone("a.aiff"), "audio/aiff", "document"),
        (tone("a.aiff"), "audio/x-aiff", "document"),
        (video("a.mp4"), "video/x-m4v", "video"),
        (video("a.m4v"), "video/mp4", "video"),
        (video("a.mov"), "video/mp4", "document"),
        (video("a.avi"), "video/avi", "document"),
        (video("a.avi"), "video/x-msvideo", "document"),
        (video("a.mkv"), "video/matroska", "document"),
        (video("a.mkv"), "video/x-matroska", "document"),
        (webm, "audio/webm", "document"),
        (tone("a.ogg"), "audio/ogg; codecs=opus", "audio"),
        (ffmpeg::made("-f lavfi -i sine -t 1 -c:a aac", "a.m4a"), "audio/aac", "audio"),
        (picture("a.jpg"), "application/octet-stream", "image"),
        (picture("a.jpg"), "image/jpg", "image"),
    ] {
        let shown = sent(&world, &bytes, json!({"media": {"mimetype": called}})).await;
        let shown = shown.unwrap_or_else(|refused| panic!("{called}: {refused:?}"));
        assert_eq!(shown["kind"], kind, "{called}: {shown}");
        if kind == "document" && called != "video/mp4" {
            assert_eq!(shown["media"]["mimetype"], called, "{shown}");
        }
    }
    let page = b"<!DOCTYPE html><html><body>Log in, please</body></html>";
    for (bytes, called) in [
        (page.to_vec(), "application/pdf"),
        (page.to_vec(), "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        (page.to_vec(), "image/heic"),
        (picture("a.jpg"), "image/png"),
        (picture("a.png"), "application/pdf"),
        (b"words".to_vec(), "audio/mpeg"),
        (video("a.mp4"), "image/jpeg"),
    ] {
        let (status, problem) = sent(&world, &bytes, json!({"media": {"mimetype": called}})).await.unwrap_err();
        assert_eq!((status, &problem["code"]), (415, &json!("media_type")), "{called}: {problem}");
        assert!(problem["message"].as_str().unwrap().contains(called), "{problem}");
    }
}
