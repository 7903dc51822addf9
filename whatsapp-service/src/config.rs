//! Every setting, once: its name, its default, and what it is for.
//!
//! Long: it is the one place where a setting is declared, and the manual is compared with it.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{
    Args, ValueEnum,
    builder::{OsStringValueParser, TypedValueParser},
};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use crate::{
    model::media::Limits,
    util::seal::{InvalidKey, Seal},
};

/// No time that can be set is longer.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// The value that stands in the examples, and must not be used.
pub const EXAMPLE_SECRET: &str = "change-me";

/// The settings of `whatsapp-service`, from the environment or from flags.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// The secret that callers send as X-Internal-Secret. Two, separated by a comma, are both valid: for rotation.
    #[arg(long, env = "INTERNAL_SECRET", hide_env_values = true, default_value = "", hide_default_value = true)]
    pub internal_secret: SecretText,

    /// A file that holds INTERNAL_SECRET, instead of it.
    #[arg(long, env = "INTERNAL_SECRET_FILE", value_parser = path_parser())]
    pub internal_secret_file: Option<PathBuf>,

    /// The key that encrypts credentials and messages on the disk: 32 bytes in base64.
    #[arg(long, env = "ENCRYPTION_KEY", hide_env_values = true)]
    pub encryption_key: Option<SecretText>,

    /// A file that holds ENCRYPTION_KEY, instead of it.
    #[arg(long, env = "ENCRYPTION_KEY_FILE", value_parser = path_parser())]
    pub encryption_key_file: Option<PathBuf>,

    /// The address to listen on.
    #[arg(long, env = "HOST", default_value = "0.0.0.0")]
    pub host: IpAddr,

    /// The port to listen on. 0 takes a free one.
    #[arg(long, env = "PORT", default_value_t = 3000)]
    pub port: u16,

    /// Where sessions are kept. Created with mode 0700; one process at a time.
    #[arg(long, env = "DATA_DIR", default_value = "./sessions")]
    pub data_dir: PathBuf,

    /// The WebSocket address of WhatsApp. The service on its own still demands proof that WhatsApp answers there.
    #[arg(long, env = "WHATSAPP_URL")]
    pub whatsapp_url: Option<String>,

    /// WhatsApp Web's version, as 2.3000.1234567890. Without it, the current one is looked up at start.
    #[arg(long, env = "WHATSAPP_VERSION", value_parser = parse_version)]
    pub whatsapp_version: Option<(u32, u32, u32)>,

    /// How this device is called in the phone's list of linked devices.
    #[arg(long, env = "DEVICE_NAME", default_value = "WhatsApp Service")]
    pub device_name: String,

    /// How long POST /send waits for WhatsApp's acknowledgement, in seconds. The message goes on after that too.
    #[arg(long, env = "SEND_TIMEOUT", default_value = "20", value_parser = parse_seconds)]
    pub send_timeout: Duration,

    /// How many messages of one tenant may wait to be sent.
    #[arg(long, env = "OUTBOX_MAX_PER_TENANT", default_value_t = 10_000)]
    pub outbox_max_per_tenant: usize,

    /// The least time between two messages of one tenant, in seconds.
    #[arg(long, env = "SEND_MIN_INTERVAL", default_value = "0", value_parser = parse_pause)]
    pub send_min_interval: Duration,

    /// Up to so much more between two messages of one tenant, at random, in seconds.
    #[arg(long, env = "SEND_JITTER", default_value = "0", value_parser = parse_pause)]
    pub send_jitter: Duration,

    /// How long messages and their fates are kept, in days.
    #[arg(long, env = "MESSAGE_RETENTION", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    pub message_retention: u16,

    /// How long events are kept, in days.
    #[arg(long, env = "EVENT_RETENTION", default_value_t = 7, value_parser = clap::value_parser!(u16).range(4..))]
    pub event_retention: u16,

    /// Keep the texts of messages as long as the messages, instead of dropping them once they are sent.
    #[arg(long, env = "KEEP_BODIES", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true")]
    pub keep_bodies: bool,

    /// Where the events of all tenants are posted to, but of those that have a webhook of their own.
    #[arg(long, env = "WEBHOOK_URL")]
    pub webhook_url: Option<String>,

    /// What they are signed with: `whsec_` and 24 to 64 bytes in base64.
    #[arg(long, env = "WEBHOOK_SECRET", hide_env_values = true)]
    pub webhook_secret: Option<SecretText>,

    /// A file that holds WEBHOOK_SECRET, instead of it.
    #[arg(long, env = "WEBHOOK_SECRET_FILE", value_parser = path_parser())]
    pub webhook_secret_file: Option<PathBuf>,

    /// How long an event is offered to a webhook before it is given up, in seconds.
    #[arg(long, env = "WEBHOOK_RETRY_FOR", default_value = "259200", value_parser = parse_seconds)]
    pub webhook_retry_for: Duration,

    /// Let webhooks, the URLs of media, and proxies lead to private addresses too: only where the tenants are trusted.
    #[arg(long, env = "ALLOW_PRIVATE_TARGETS", default_value_t = false, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true")]
    pub allow_private_targets: bool,

    /// The largest picture to send, in bytes.
    #[arg(long, env = "MEDIA_MAX_IMAGE", default_value_t = 16 * 1024 * 1024)]
    pub media_max_image: u64,

    /// The largest film to send, in bytes.
    #[arg(long, env = "MEDIA_MAX_VIDEO", default_value_t = 64 * 1024 * 1024)]
    pub media_max_video: u64,

    /// The largest sound file or voice note to send, in bytes.
    #[arg(long, env = "MEDIA_MAX_AUDIO", default_value_t = 16 * 1024 * 1024)]
    pub media_max_audio: u64,

    /// The largest document to send, in bytes.
    #[arg(long, env = "MEDIA_MAX_DOCUMENT", default_value_t = 100 * 1024 * 1024)]
    pub media_max_document: u64,

    /// The largest sticker to send, in bytes.
    #[arg(long, env = "MEDIA_MAX_STICKER", default_value_t = 1024 * 1024)]
    pub media_max_sticker: u64,

    /// How much media of all tenants may wait on the disk, in bytes; of one tenant, a quarter of it.
    #[arg(long, env = "MEDIA_ROOM", default_value_t = 10 * 1024 * 1024 * 1024)]
    pub media_room: u64,

    /// How much memory making the small picture of a JPEG or PNG may take, in bytes: the file as such for JPEG, and the
    /// picture unpacked. One is made at a time; 0 makes none.
    #[arg(long, env = "MEDIA_PREVIEW_MEMORY", default_value_t = 48 * 1024 * 1024)]
    pub media_preview_memory: u64,

    /// How long fetching media from URLs may take, for all of a call, in seconds.
    #[arg(long, env = "MEDIA_FETCH_TIMEOUT", default_value = "60", value_parser = parse_seconds)]
    pub media_fetch_timeout: Duration,

    /// The largest request body, in bytes, without the media that is in it as base64.
    #[arg(long, env = "BODY_LIMIT", default_value_t = 1024 * 1024)]
    pub body_limit: usize,

    /// How much memory the bodies of all requests may take together, in bytes, each counted twice: as it came, and as it
    /// was read. A tenant may have three quarters of it, and one body half of that.
    #[arg(long, env = "BODY_MEMORY", default_value_t = 384 * 1024 * 1024)]
    pub body_memory: u64,

    /// How long a client may take to send a request's head, and then its body, in seconds, and a second more for every
    /// 64 KiB of it; of a form, each field. An idle connection is closed after this time too.
    #[arg(long, env = "READ_TIMEOUT", default_value = "30", value_parser = parse_seconds)]
    pub read_timeout: Duration,

    /// How many connections callers may have at the same time. Without it, a quarter of the files that the process may
    /// open, and 4,096 at most.
    #[arg(long, env = "MAX_CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: Option<u32>,

    /// How long the clock must not jump to count as steady, in seconds. For tests.
    #[arg(long, env = "CLOCK_STEADY_AFTER", default_value = "600", value_parser = parse_pause, hide = true)]
    pub clock_steady_after: Duration,

    /// How many times per second WhatsApp is dialled at most, for all sessions together. 0 is no limit.
    #[arg(long, env = "DIAL_RATE", default_value = "10", value_parser = parse_rate)]
    pub dial_rate: f64,

    /// How many sessions may be between their dial and their login at the same time.
    #[arg(long, env = "DIAL_CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub dial_concurrency: u16,

    /// How log lines are written.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// The least important log lines to write.
    #[arg(long, env = "LOG_LEVEL", value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,
}

impl Config {
    /// `WHATSAPP_URL`; empty counts as unset.
    pub fn whatsapp_url(&self) -> Option<&str> {
        self.whatsapp_url.as_deref().filter(|url| !url.is_empty())
    }

    /// `WEBHOOK_URL`; empty counts as unset.
    pub fn webhook_for_all(&self) -> Option<&str> {
        self.webhook_url.as_deref().filter(|url| !url.is_empty())
    }

    /// The most bytes of each kind of media.
    pub fn media_limits(&self) -> Limits {
        Limits {
            image: self.media_max_image,
            video: self.media_max_video,
            audio: self.media_max_audio,
            document: self.media_max_document,
            sticker: self.media_max_sticker,
        }
    }

    /// `INTERNAL_SECRET`, from the environment or its file; empty if it is not set.
    pub fn internal_secret(&self) -> Result<SecretText, UnreadableSecret> {
        let secret = secret("INTERNAL_SECRET", Some(&self.internal_secret), self.internal_secret_file.as_deref())?;
        Ok(secret.unwrap_or_else(|| "".into()))
    }

    /// `WEBHOOK_SECRET`, from the environment or its file; empty counts as unset.
    pub fn webhook_secret(&self) -> Result<Option<SecretText>, UnreadableSecret> {
        secret("WEBHOOK_SECRET", self.webhook_secret.as_ref(), self.webhook_secret_file.as_deref())
    }

    /// What `ENCRYPTION_KEY` seals with.
    pub fn seal(&self) -> Result<Seal, UnreadableSecret> {
        seal("ENCRYPTION_KEY", self.encryption_key.as_ref(), self.encryption_key_file.as_deref())
    }
}

/// What the key of this name seals with; empty counts as unset.
pub fn seal(name: &'static str, text: Option<&SecretText>, file: Option<&Path>) -> Result<Seal, UnreadableSecret> {
    let Some(key) = secret(name, text, file)? else { return Ok(Seal::NONE) };
    Seal::with_key(key.text()).map_err(|source| UnreadableSecret::Key { name, source })
}

/// A secret that is set as it is or by a file; empty counts as unset, but not an empty file.
fn secret(
    name: &'static str,
    text: Option<&SecretText>,
    file: Option<&Path>,
) -> Result<Option<SecretText>, UnreadableSecret> {
    let text = text.filter(|text| !text.text().is_empty());
    match (text, file.filter(|path| !path.as_os_str().is_empty())) {
        (Some(_), Some(_)) => Err(UnreadableSecret::Twice { name }),
        (text, None) => Ok(text.cloned()),
        (None, Some(path)) => {
            let text = fs::read_to_string(path).map(Zeroizing::new);
            let text = text.map_err(|source| UnreadableSecret::File { name, path: path.into(), source })?;
            match text.trim() {
                "" => Err(UnreadableSecret::Empty { name }),
                text => Ok(Some(text.into())),
            }
        }
    }
}

/// Why a secret can't be taken from the settings.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableSecret {
    /// Nobody can say which counts.
    #[error("both {name} and {name}_FILE are set: set one of them")]
    Twice {
        /// The variable.
        name: &'static str,
    },
    /// The file can't be read.
    #[error("{name}_FILE: can't read {path}: {source}")]
    File {
        /// The variable.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that somebody named should hold something.
    #[error("{name}_FILE: the file is empty")]
    Empty {
        /// The variable.
        name: &'static str,
    },
    /// The text is not a key.
    #[error("{name} {source}")]
    Key {
        /// The variable.
        name: &'static str,
        /// What is wrong with it.
        source: InvalidKey,
    },
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The least important log lines to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Only what needs a person.
    Error,
    /// And what may need one.
    Warn,
    /// And every request and every change of a session's state.
    Info,
    /// And what helps to find a fault.
    Debug,
}

/// A secret as it was set. Nothing prints it, a complaint about it neither, and it is wiped when it is dropped.
#[derive(Clone)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// The secrets in it.
    pub fn secrets(&self) -> Result<Secrets, InvalidSecret> {
        self.0.parse()
    }

    /// All of it.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The first secret in it: what a caller on the same machine sends.
    pub fn first(&self) -> &str {
        self.0.split(',').next().unwrap_or_default().trim()
    }
}

impl From<&str> for SecretText {
    fn from(text: &str) -> Self {
        Self(Zeroizing::new(text.into()))
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText")
    }
}

/// The secrets that callers may send: one, or two while one takes the other's place.
///
/// Only their digests are held, and nothing here prints them.
#[derive(Clone)]
pub struct Secrets(Vec<[u8; 32]>);

/// Why `INTERNAL_SECRET` can't be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidSecret {
    /// None is set.
    #[error("INTERNAL_SECRET is not set: give the service a secret that its callers know")]
    Missing,
    /// It is the one from the documentation.
    #[error("INTERNAL_SECRET is the example's value: choose one that nobody else knows")]
    Example,
    /// More than a rotation needs.
    #[error("INTERNAL_SECRET holds more than two secrets")]
    TooMany,
}

impl std::str::FromStr for Secrets {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let secrets: Vec<_> = text.split(',').map(str::trim).collect();
        if secrets.contains(&"") {
            Err(InvalidSecret::Missing)
        } else if secrets.contains(&EXAMPLE_SECRET) {
            Err(InvalidSecret::Example)
        } else if secrets.len() > 2 {
            Err(InvalidSecret::TooMany)
        } else {
            Ok(Self(secrets.into_iter().map(digest).collect()))
        }
    }
}

impl Secrets {
    /// Whether `candidate` is one of them, in a time that says nothing about how close it came.
    pub fn accept(&self, candidate: &[u8]) -> bool {
        let candidate = digest(candidate);
        self.0.iter().fold(Choice::from(0), |any, secret| any | secret.ct_eq(&candidate)).into()
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

fn digest(text: impl AsRef<[u8]>) -> [u8; 32] {
    Sha256::digest(text.as_ref()).into()
}

/// Takes an empty path too: it counts as unset.
pub fn path_parser() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>().map(Duration::try_from_secs_f64) {
        Ok(Ok(duration)) if !duration.is_zero() && duration <= LONGEST => Ok(duration),
        _ => Err("a number of seconds above 0, up to 2592000, which is 30 days".into()),
    }
}

fn parse_pause(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>().map(Duration::try_from_secs_f64) {
        Ok(Ok(duration)) if duration <= LONGEST => Ok(duration),
        _ => Err("a number of seconds from 0 to 2592000, which is 30 days".into()),
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate == 0.0 || (0.001..=100_000.0).contains(&rate) => Ok(rate),
        _ => Err("a number of dials per second from 0.001 to 100000, or 0 for no limit".into()),
    }
}

fn parse_version(text: &str) -> Result<(u32, u32, u32), String> {
    let parts: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
    match parts.as_deref() {
        Some(&[major, minor, patch]) => Ok((major, minor, patch)),
        _ => Err("three numbers, like 2.3000.1234567890".into()),
    }
}

#[cfg(test)]
mod tests;
