//! What travels beside what a message says (`contextInfo`): its timer, who is mentioned, and the ad it came from.

use serde::Deserialize;
use waproto::whatsapp as wa;

/// The kinds of messages that carry it.
macro_rules! carriers {
    ($callback:ident) => {
        $callback!(
            extended_text_message,
            image_message,
            video_message,
            ptv_message,
            audio_message,
            document_message,
            sticker_message,
            location_message,
            live_location_message,
            contact_message,
            contacts_array_message,
            buttons_response_message,
            list_response_message,
            template_button_reply_message,
            interactive_response_message,
            poll_creation_message,
            poll_creation_message_v2,
            poll_creation_message_v3,
            poll_creation_message_v5,
            product_message,
            order_message
        )
    };
}

/// The context of a message out of its wrappers.
pub(crate) fn context(message: &wa::Message) -> Option<&wa::ContextInfo> {
    macro_rules! first {
        ($($field:ident),+) => { None$(.or_else(|| message.$field.as_option()?.context_info.as_option()))+ };
    }
    carriers!(first)
}

/// The context of a message, to be written to; a bare text becomes one that can carry it. `None` where there is no place
/// for it.
pub(crate) fn context_mut(message: &mut wa::Message) -> Option<&mut wa::ContextInfo> {
    if let Some(text) = message.conversation.take() {
        let extended = wa::message::ExtendedTextMessage { text: Some(text), ..Default::default() };
        message.extended_text_message = Some(extended).into();
    }
    // A document with a caption is in a wrapper.
    if message.document_with_caption_message.is_set() {
        let wrapper = message.document_with_caption_message.as_option_mut()?;
        return context_mut(wrapper.message.as_option_mut()?);
    }
    macro_rules! first {
        ($($field:ident),+) => {
            $(if message.$field.is_set() {
                return Some(message.$field.as_option_mut()?.context_info.get_or_insert_default());
            })+
        };
    }
    carriers!(first);
    None
}

/// How long the messages of a chat stay, and since when that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timer {
    /// In seconds; 0: for ever.
    pub(crate) seconds: u32,
    /// In seconds since 1970.
    pub(crate) set_at: i64,
}

impl Timer {
    /// Writes it into a message that is to disappear.
    pub(crate) fn mark(self, message: &mut wa::Message) {
        if self.seconds > 0
            && let Some(context) = context_mut(message)
        {
            context.expiration = Some(self.seconds);
            context.ephemeral_setting_timestamp = Some(self.set_at);
        }
    }
}

/// The ad or post that somebody came from (`externalAdReply`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Referral {
    /// Where it leads.
    pub source_url: Option<String>,
    /// `ad` or `post`.
    pub source_type: Option<String>,
    /// Its id at Meta.
    pub source_id: Option<String>,
    /// Its headline.
    pub headline: Option<String>,
    /// Its words.
    pub body: Option<String>,
    /// `image` or `video`.
    pub media_type: Option<String>,
    /// Where its video is.
    pub media_url: Option<String>,
    /// Where a small picture of it is.
    pub thumbnail_url: Option<String>,
    /// The id of the click.
    pub ctwa_clid: Option<String>,
}

impl Referral {
    /// Writes it into a message. `false` where there is no place for it.
    pub(crate) fn mark(self, message: &mut wa::Message) -> bool {
        use wa::context_info::external_ad_reply_info::MediaType;
        let Some(context) = context_mut(message) else { return false };
        let media_type = match self.media_type.as_deref() {
            Some("image") => Some(MediaType::IMAGE),
            Some("video") => Some(MediaType::VIDEO),
            _ => None,
        };
        let ad = wa::context_info::ExternalAdReplyInfo {
            title: self.headline,
            body: self.body,
            media_type,
            media_url: self.media_url,
            thumbnail_url: self.thumbnail_url,
            source_type: self.source_type,
            source_id: self.source_id,
            source_url: self.source_url,
            ctwa_clid: self.ctwa_clid,
            show_ad_attribution: Some(true),
            ..Default::default()
        };
        context.external_ad_reply = Some(ad).into();
        context.entry_point_conversion_source = Some("ctwa_ad".to_owned());
        true
    }
}
