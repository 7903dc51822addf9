//! Media that is to be sent: taken in as a stream, encrypted while it comes as WhatsApp wants it, kept in a file until it
//! was sent, and uploaded once for all messages that hold the same bytes.

pub mod bounded;
pub mod fetch;
pub mod intake;
pub mod jpeg;
pub mod kind;
pub mod link_preview;
pub mod mime;
pub mod movie;
pub mod names;
pub mod part;
pub mod preview;
pub mod room;
pub mod shelf;
pub mod sweep;
pub mod upload;
pub mod voice;
pub mod webp;
pub mod zip;

use crate::{media::fetch::FetchFailure, model::media::MediaKind};

/// Why media is not taken. What it says is for the caller, who wrote what it is about.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// Something about it is wrong.
    #[error("{0}")]
    Invalid(String),
    /// More than one of these is asked for.
    #[error("`voice`, `sticker`, `document` and `gif`: only one of them can be true")]
    Clash,
    /// There are no bytes.
    #[error("`media` is empty")]
    Empty,
    /// The bytes are not what they are said to be, or not what the kind needs.
    #[error("{0}")]
    Type(String),
    /// There is no audio that a voice note can be made of.
    #[error(
        "`voice` needs audio that can be read here: Opus, AAC, MP3, WAV, FLAC or Vorbis. See docs/conversion.md for others"
    )]
    NoVoice,
    /// A voice note is to be made of a video.
    #[error("`voice` needs a recording without pictures, and the bytes are a video")]
    VideoForVoice,
    /// A voice note is to be made of something very long.
    #[error("`voice` makes voice notes of recordings that play for {} minutes at most", seconds / 60)]
    TooLong {
        /// How long it may play.
        seconds: u64,
    },
    /// There is no video that can play in a loop.
    #[error("`gif` needs a video: MP4 with moving pictures. See docs/conversion.md for how a GIF becomes one")]
    NoGif,
    /// Others are in the way, and it would take too long.
    #[error("too many voice notes are being made")]
    Busy,
    /// More bytes than allowed.
    #[error("`media` is larger than {limit} bytes, which is the most for this kind ({})", .kind.as_str())]
    TooLarge {
        /// What it would be sent as.
        kind: MediaKind,
        /// How many bytes are allowed.
        limit: u64,
    },
    /// More bytes than any kind may have, as whoever sends them announces.
    #[error("`media` is larger than {limit} bytes, which is the most for any kind")]
    Oversized {
        /// How many bytes are allowed.
        limit: u64,
    },
    /// The URL led to nothing that can be sent. It is not said why: that would tell about the network of the service.
    #[error("the media could not be fetched from `media.url`")]
    NotFetched(FetchFailure),
    /// The stream broke off.
    #[error("the media broke off before its end")]
    BrokenOff,
    /// The bytes did not come in time.
    #[error("the media did not arrive in time")]
    TooSlow,
    /// The tenant has its share of the room for media.
    #[error("the media of this tenant that waits to be sent fills its share of the room")]
    ShareFull,
    /// All tenants together have filled the room for media.
    #[error("the media of all tenants that waits to be sent fills the room")]
    RoomFull,
    /// The disk does not take it.
    #[error("the media can't be stored now")]
    Disk,
}
