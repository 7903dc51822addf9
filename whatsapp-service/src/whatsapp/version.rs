//! Which version of WhatsApp Web to say we are.
//!
//! The library would ask for it in every client, every day, and not connect when the answer fails. Here it is asked for
//! once in the life of the process, and the last good answer is remembered on disk.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::whatsapp::library;
use tokio::sync::Mutex;
use whatsapp_rust::{http::HttpClient, version::fetch_latest_app_version, wacore::store::Device};

/// Major, minor and patch number.
pub type Version = (u32, u32, u32);

/// Finds the version, once.
pub struct VersionSource {
    fixed: Option<Version>,
    remembered: PathBuf,
    found: Mutex<Option<Found>>,
    /// WhatsApp refused what was found.
    doubted: AtomicBool,
}

#[derive(Clone, Copy)]
struct Found {
    version: Version,
    at: Instant,
    /// Whether it is the current one, as far as is known, and not only the best that could be had.
    current: bool,
}

/// How long to go on with an older version before asking again.
const ASK_AGAIN: Duration = Duration::from_secs(300);

impl VersionSource {
    /// `fixed` is used where it is given; `remembered` is the file that holds the last good version.
    pub fn new(fixed: Option<Version>, remembered: PathBuf) -> Self {
        Self { fixed, remembered, found: Mutex::default(), doubted: AtomicBool::new(false) }
    }

    /// The version to use: the fixed one, else the current one, else the last good one, else the library's.
    pub async fn get(&self, http: &Arc<dyn HttpClient>) -> Version {
        if let Some(fixed) = self.fixed {
            return fixed;
        }
        let mut found = self.found.lock().await;
        if self.doubted.swap(false, Ordering::Relaxed)
            && let Some(found) = &mut *found
        {
            found.current = false;
        }
        match *found {
            Some(found) if found.current || found.at.elapsed() < ASK_AGAIN => found.version,
            _ => {
                let (version, current) = self.find(http).await;
                *found = Some(Found { version, at: Instant::now(), current });
                version
            }
        }
    }

    /// WhatsApp refuses the version: ask for the current one again, but not for each of a thousand sessions.
    pub fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
    }

    async fn find(&self, http: &Arc<dyn HttpClient>) -> (Version, bool) {
        match fetch_latest_app_version(http).await {
            Ok(version @ (major, minor, patch)) => {
                if let Err(error) = fs::write(&self.remembered, format!("{major}.{minor}.{patch}")) {
                    tracing::warn!(%error, "WhatsApp Web's version can't be remembered");
                }
                (version, true)
            }
            Err(error) => {
                let version = self.last_good().unwrap_or_else(built_in);
                tracing::warn!(%error, ?version, "WhatsApp Web's version can't be looked up; using an older one");
                (version, false)
            }
        }
    }

    fn last_good(&self) -> Option<Version> {
        let text = fs::read_to_string(&self.remembered).ok()?;
        let parts: Option<Vec<u32>> = text.trim().split('.').map(|part| part.parse().ok()).collect();
        match parts.as_deref() {
            Some(&[major, minor, patch]) => Some((major, minor, patch)),
            _ => None,
        }
    }
}

/// The version that the library was made with.
pub fn built_in() -> Version {
    library::start();
    let device = Device::new();
    (device.app_version_primary, device.app_version_secondary, device.app_version_tertiary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use whatsapp_rust::{
        anyhow::{Result, anyhow},
        async_trait,
        http::{HttpRequest, HttpResponse},
    };

    /// A version page that is there, or is not.
    struct Page(Option<&'static str>);

    #[async_trait]
    impl HttpClient for Page {
        async fn execute(&self, _: HttpRequest) -> Result<HttpResponse> {
            let body = self.0.ok_or_else(|| anyhow!("no network"))?.as_bytes().to_vec();
            Ok(HttpResponse { status_code: 200, body })
        }
    }

    const GOOD: &str = r#"self.__swData=JSON.parse(/*BTDS*/"{\"dynamic_data\":{\"SiteData\":{\"server_revision\":1026131876,\"client_revision\":1026131876}}}");"#;

    fn page(body: Option<&'static str>) -> Arc<dyn HttpClient> {
        Arc::new(Page(body))
    }

    #[tokio::test]
    async fn the_last_good_version_outlives_the_page() {
        let file = std::env::temp_dir().join(format!("whatsapp-version-test-{}", std::process::id()));
        let _ = fs::remove_file(&file);
        let source = || VersionSource::new(None, file.clone());
        assert_eq!(source().get(&page(None)).await, built_in(), "nothing is remembered yet");
        assert_eq!(source().get(&page(Some(GOOD))).await, (2, 3000, 1026131876));
        assert_eq!(source().get(&page(None)).await, (2, 3000, 1026131876));
        assert_eq!(source().get(&page(Some("<html>no</html>"))).await, (2, 3000, 1026131876));
        let fixed = VersionSource::new(Some((1, 2, 3)), file.clone());
        assert_eq!(fixed.get(&page(Some(GOOD))).await, (1, 2, 3));
        fs::remove_file(&file).unwrap();
    }

    #[tokio::test]
    async fn the_page_is_asked_once() {
        let source = VersionSource::new(Some((1, 2, 3)), "/nowhere/version".into());
        assert_eq!(source.get(&page(None)).await, (1, 2, 3));
        let source = VersionSource::new(None, "/nowhere/version".into());
        assert_eq!(source.get(&page(Some(GOOD))).await, (2, 3000, 1026131876));
        assert_eq!(source.get(&page(None)).await, (2, 3000, 1026131876), "the second page was not asked");
        source.doubt();
        assert_eq!(source.get(&page(None)).await, (2, 3000, 1026131876), "not again so soon");
    }
}
