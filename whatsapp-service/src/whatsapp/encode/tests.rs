use super::*;

fn at() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_700_000_000_123).unwrap()
}

fn built(kind: ContentKind, reply_to: Option<&str>, referred: Option<&Referred>) -> wa::Message {
    let (chat, own) = (Jid::pn("5511888888888"), Jid::pn("5511999999999"));
    let way = Way { chat: &chat, own: &own, accepted_at: at(), referred, said_before: None, timer: None };
    message(&Content { reply_to: reply_to.map(Into::into), ..Content::alone(kind) }, &way)
}

fn told(logged: Logged) -> Referred {
    Referred::Logged(Box::new(Logged { chat: "5511888888888@s.whatsapp.net".into(), ..logged }))
}

#[test]
fn a_plain_text_is_as_it_was() {
    assert_eq!(built(ContentKind::Text("Hello".into()), None, None), wa::Message::text("Hello"));
}

#[test]
fn media_says_where_it_is_and_what_opens_it() {
    let upload = Upload { url: "https://host/v/1?x".into(), direct_path: "/v/1?x".into(), at: 5 };
    let parcel = |kind| StoredMedia {
        file: "file".into(),
        kind,
        key: vec![1; 32],
        sha256: vec![2; 32],
        encrypted_sha256: vec![3; 32],
        size: 4,
        at: 1_700_000_000,
        sidecar: Some(vec![5; 10]),
        width: Some(6),
        height: Some(7),
        seconds: Some(8),
        waveform: (kind == MediaKind::Voice).then(|| vec![10; 64]),
        animated: kind == MediaKind::Sticker,
        thumbnail: Some(vec![9]),
        upload: Some(upload.clone()),
    };
    let built = |kind| {
        let media = Media {
            kind,
            mimetype: "a/b".into(),
            filename: Some("name".into()),
            size: 4,
            sha256: String::new(),
            width: None,
            height: None,
            seconds: None,
            gif: kind == MediaKind::Video,
            caption: Some("below".into()),
            parcel: parcel(kind),
        };
        built(ContentKind::Media(media.into()), None, None)
    };
    macro_rules! check {
        ($field:ident: $type:ident, $($kind:ident $more:tt),+) => {
            $(
                let expected = $type {
                    url: Some("https://host/v/1?x".into()),
                    direct_path: Some("/v/1?x".into()),
                    mimetype: Some("a/b".into()),
                    file_sha256: Some(vec![2; 32]),
                    file_enc_sha256: Some(vec![3; 32]),
                    file_length: Some(4),
                    media_key: Some(vec![1; 32]),
                    media_key_timestamp: Some(1_700_000_000),
                    ..check!($type $more)
                };
                let expected = wa::Message { $field: expected.into(), ..Default::default() };
                assert_eq!(built(MediaKind::$kind), expected);
            )+
        };
        ($type:ident { $($own:ident: $value:expr),* }) => { $type { $($own: Some($value),)* ..Default::default() } };
    }
    check!(image_message: ImageMessage, Image { caption: "below".into(), width: 6, height: 7, jpeg_thumbnail: vec![9] });
    check!(video_message: VideoMessage, Video {
        caption: "below".into(), width: 6, height: 7, seconds: 8, jpeg_thumbnail: vec![9],
        streaming_sidecar: vec![5; 10], gif_playback: true
    });
    check!(audio_message: AudioMessage,
        Audio { seconds: 8, ptt: false, streaming_sidecar: vec![5; 10] },
        Voice { seconds: 8, ptt: true, streaming_sidecar: vec![5; 10], waveform: vec![10; 64] });
    check!(sticker_message: StickerMessage, Sticker { width: 6, height: 7, is_animated: true });
    check!(document_message: DocumentMessage, Document {
        caption: "below".into(), title: "name".into(), file_name: "name".into()
    });
}

#[test]
fn what_travels_beside_a_message_goes_with_every_kind_that_can_carry_it() {
    let (chat, own) = (Jid::pn("5511888888888"), Jid::pn("5511999999999"));
    let timer = Some(Timer { seconds: 86_400, set_at: 1_700_000_000 });
    let way = Way { chat: &chat, own: &own, accepted_at: at(), referred: None, said_before: None, timer };
    let preview = LinkPreview {
        url: "https://example.com".into(),
        title: "A page".into(),
        description: Some("More".into()),
        thumbnail: Some(vec![1]),
    };
    let text = Content {
        reply_to: Some("3EB0AA".into()),
        mentions: vec!["5511777777777".into()],
        link_preview: Some(preview),
        ..Content::text("@5511777777777 see https://example.com")
    };
    let message = message(&text, &way);
    let body = message.extended_text_message.as_option().unwrap();
    let shown = (body.matched_text.as_deref(), body.title.as_deref(), body.description.as_deref());
    assert_eq!(shown, (Some("https://example.com"), Some("A page"), Some("More")));
    assert_eq!((body.jpeg_thumbnail.as_deref(), message.conversation.as_deref()), (Some(&[1_u8][..]), None));
    let context = body.context_info.as_option().unwrap();
    assert_eq!((context.stanza_id.as_deref(), context.expiration), (Some("3EB0AA"), Some(86_400)));
    assert_eq!(context.ephemeral_setting_timestamp, Some(1_700_000_000));
    assert_eq!(context.mentioned_jid, ["5511777777777@s.whatsapp.net"]);
    let place = Location { latitude: 1.5, longitude: -2.5, name: None, address: None };
    let place = super::message(&Content::alone(ContentKind::Location(place)), &way);
    assert_eq!(place.location_message.context_info.expiration, Some(86_400));
    for kind in [
        ContentKind::Reaction(Reaction { message_id: "3EB0AA".into(), emoji: "👍".into() }),
        ContentKind::Revoke(Revoke { message_id: "3EB0AA".into() }),
    ] {
        let without = Way { timer: None, said_before: None, ..way };
        assert_eq!(
            super::message(&Content::alone(kind.clone()), &way),
            super::message(&Content::alone(kind), &without)
        );
    }
}

#[test]
fn a_card_can_not_be_broken_out_of() {
    let card = vcard("Ana; Bruno, \\ & Co", "+55 (11) 99999-9999");
    let name = "Ana\\; Bruno\\, \\\\ & Co";
    assert_eq!(
        card,
        format!(
            "BEGIN:VCARD\nVERSION:3.0\nN:;{name};;;\nFN:{name}\n\
             TEL;type=CELL;type=VOICE;waid=5511999999999:+5511999999999\nEND:VCARD"
        )
    );
}

#[test]
fn an_answer_quotes_what_is_known() {
    let text = || ContentKind::Text("Yes".into());
    let theirs = told(Logged { text: Some("Coming?".into()), ..Logged::default() });
    let own = told(Logged { text: Some("Well?".into()), from_me: true, ..Logged::default() });
    for (referred, author, said) in [
        (None, "5511888888888@s.whatsapp.net", ""),
        (Some(&theirs), "5511888888888@s.whatsapp.net", "Coming?"),
        (Some(&own), "5511999999999@s.whatsapp.net", "Well?"),
    ] {
        let message = built(text(), Some("3EB0AA"), referred);
        let body = message.extended_text_message.as_option().unwrap();
        assert_eq!((body.text.as_deref(), message.conversation.as_deref()), (Some("Yes"), None));
        let context = body.context_info.as_option().unwrap();
        assert_eq!((context.stanza_id.as_deref(), context.participant.as_deref()), (Some("3EB0AA"), Some(author)));
        assert_eq!(context.quoted_message.as_option().unwrap().conversation.as_deref(), Some(said));
    }
    let place = Location { latitude: 1.5, longitude: -2.5, name: None, address: None };
    let answer = built(ContentKind::Location(place), Some("3EB0AA"), Some(&theirs));
    let context = answer.location_message.as_option().unwrap().context_info.as_option().unwrap();
    assert_eq!(context.stanza_id.as_deref(), Some("3EB0AA"));
}

#[test]
fn a_place_that_was_received_is_quoted_as_one() {
    let place = serde_json::json!({"latitude": 1.5, "longitude": 2, "live": true});
    let theirs = told(Logged { location: Some(place), ..Logged::default() });
    let message = built(ContentKind::Text("There?".into()), Some("3EB0AA"), Some(&theirs));
    let context = message.extended_text_message.as_option().unwrap().context_info.as_option().unwrap();
    let quoted = context.quoted_message.as_option().unwrap().location_message.as_option().unwrap();
    assert_eq!((quoted.degrees_latitude, quoted.degrees_longitude), (Some(1.5), Some(2.0)));
}

#[test]
fn what_is_about_another_message_names_it_and_who_wrote_it() {
    let id = || "3EB0AA".to_owned();
    let own = told(Logged { from_me: true, ..Logged::default() });
    for (referred, from_me) in [(None, false), (Some(&own), true)] {
        let reaction = Reaction { message_id: id(), emoji: "👍".into() };
        let message = built(ContentKind::Reaction(reaction), None, referred);
        let reaction = message.reaction_message.as_option().unwrap();
        let key = reaction.key.as_option().unwrap();
        assert_eq!((key.id.as_deref(), key.from_me), (Some("3EB0AA"), Some(from_me)));
        assert_eq!(key.remote_jid.as_deref(), Some("5511888888888@s.whatsapp.net"));
        assert_eq!((reaction.text.as_deref(), reaction.sender_timestamp_ms), (Some("👍"), Some(1_700_000_000_123)));
    }
    let edit = built(ContentKind::Edit(Edit { message_id: id(), message: "New".into() }), None, None);
    let revoke = built(ContentKind::Revoke(Revoke { message_id: id() }), None, None);
    for (message, kind, text) in
        [(edit, protocol_message::Type::MessageEdit, Some("New")), (revoke, protocol_message::Type::Revoke, None)]
    {
        let protocol = message.protocol_message.as_option().unwrap();
        let key = protocol.key.as_option().unwrap();
        assert_eq!((protocol.r#type, key.id.as_deref(), key.from_me), (Some(kind), Some("3EB0AA"), Some(true)));
        let edited = protocol.edited_message.as_option().and_then(|edited| edited.conversation.as_deref());
        assert_eq!(edited, text);
        assert_eq!(protocol.timestamp_ms, text.map(|_| 1_700_000_000_123));
    }
}
