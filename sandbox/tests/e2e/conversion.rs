//! The lines of `docs/conversion.md`, run as they stand there: what they make arrives as what they promise.

use serde_json::json;
use tempfile::TempDir;

use crate::{
    ffmpeg,
    harness::BRUNO,
    media::{paired, send_form},
};

const MANUAL: &str = include_str!("../../../docs/conversion.md");

/// The commands below a heading.
fn commands(heading: &str) -> &'static str {
    let (_, section) = MANUAL.split_once(&format!("\n### {heading}\n")).expect("the heading");
    let (_, commands) = section.split("\n### ").next().unwrap().split_once("```sh\n").expect("commands");
    commands.split("```").next().unwrap()
}

#[tokio::test]
async fn every_line_of_the_manual_makes_what_it_promises() {
    if ffmpeg::is_missing() {
        return;
    }
    let world = paired(&[]).await;
    // Sides that are odd, and more bits than phones show.
    let video = "-f lavfi -i testsrc=s=161x121:r=10 -f lavfi -i sine -t 2";
    let mut tried = Vec::new();
    for (heading, input, name, made, fields, kind, about) in [
        (
            "A video",
            format!("{video} -c:v ffv1 -pix_fmt yuv444p"),
            "in.mkv",
            "out.mp4",
            vec![],
            "video",
            json!({"seconds": 2, "width": 160}),
        ),
        (
            "A video",
            format!("{video} -c:v libvpx -pix_fmt yuv420p"),
            "in.webm",
            "out.mp4",
            vec![],
            "video",
            json!({"seconds": 2}),
        ),
        (
            "A smaller video",
            "-f lavfi -i testsrc=s=1921x1081:r=5 -t 1".into(),
            "in.mov",
            "out.mp4",
            vec![],
            "video",
            json!({"width": 1280}),
        ),
        (
            "A GIF",
            "-f lavfi -i testsrc=s=161x121:r=5 -t 1".into(),
            "in.gif",
            "out.mp4",
            vec![("gif", "true")],
            "video",
            json!({"gif": true}),
        ),
        (
            "Audio",
            "-f lavfi -i sine -t 2".into(),
            "in.wav",
            "out.m4a",
            vec![],
            "audio",
            json!({"seconds": 2, "mimetype": "audio/mp4"}),
        ),
        (
            "A voice note",
            "-f lavfi -i sine -t 2 -ac 2".into(),
            "in.wma",
            "out.ogg",
            vec![("voice", "true")],
            "voice",
            json!({"seconds": 2}),
        ),
        (
            "A voice note",
            format!("{video} -pix_fmt yuv420p -s 160x120"),
            "in.mp4",
            "out.ogg",
            vec![("voice", "true")],
            "voice",
            json!({"seconds": 2}),
        ),
        (
            "An image",
            "-f lavfi -i testsrc=s=161x121 -frames:v 1".into(),
            "in.tiff",
            "out.jpg",
            vec![],
            "image",
            json!({"width": 161}),
        ),
        (
            "A sticker",
            "-f lavfi -i testsrc=s=300x100 -frames:v 1".into(),
            "in.png",
            "out.webp",
            vec![("sticker", "true")],
            "sticker",
            json!({"width": 512, "height": 512, "animated": null}),
        ),
        (
            "A sticker that moves",
            "-f lavfi -i testsrc=s=300x100:r=5 -t 1".into(),
            "in.gif",
            "out.webp",
            vec![("sticker", "true")],
            "sticker",
            json!({"width": 512, "height": 512, "animated": true}),
        ),
        (
            "A video with a cover",
            format!("{video} -pix_fmt yuv420p -s 160x120"),
            "in.mp4",
            "out.mp4",
            vec![],
            "video",
            json!({"thumbnail": true}),
        ),
    ] {
        let folder = TempDir::new().unwrap();
        ffmpeg::run(folder.path(), &format!("ffmpeg -v error -y {input} {name} && mv {name} in"));
        ffmpeg::run(folder.path(), commands(heading));
        let bytes = std::fs::read(folder.path().join(made)).unwrap();
        let (status, answer) = send_form(&world.service, &fields, made, bytes).await;
        assert_eq!(status, 200, "{heading} {name}: {answer}");
        let (shown, _) = world.until_file(BRUNO, &answer["id"]).await;
        assert_eq!(shown["kind"], kind, "{heading} {name}: {shown}");
        for (field, value) in about.as_object().unwrap() {
            assert_eq!(&shown["media"][field], value, "{heading} {name}: {shown}");
        }
        tried.push(heading);
    }
    for heading in MANUAL.split("\n### ").skip(1).map(|section| section.lines().next().unwrap()) {
        assert!(tried.contains(&heading), "{heading} is tried");
    }
}
