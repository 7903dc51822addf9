//! What the messages of a call show of the links in them, if that was asked for.

use std::collections::{BTreeSet, HashMap};

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use crate::{
    http::App,
    media::link_preview::LINK_PREVIEW_LIMIT,
    model::{content::LinkPreview, tenant::TenantId},
};

/// How many pages of a call are fetched at once.
const SIDE_BY_SIDE: usize = 4;

/// What came of the links of a call.
pub struct LinkPreviews(HashMap<String, LinkPreview>);

impl LinkPreviews {
    /// Fetches what is behind these links: each once, a few side by side, and all of it in five seconds. What is not here
    /// by then is left out.
    pub async fn of(app: &App, tenant: &TenantId, links: impl Iterator<Item = &str>) -> Self {
        let deadline = Instant::now() + LINK_PREVIEW_LIMIT;
        let links: BTreeSet<String> = links.map(str::to_owned).collect();
        let fetching = links.into_iter().map(|link| async move {
            let preview = app.manager.media().link_preview(tenant, &link, deadline).await?;
            Some((link, preview))
        });
        Self(stream::iter(fetching).buffer_unordered(SIDE_BY_SIDE).filter_map(std::future::ready).collect().await)
    }

    /// What is behind a link, if that is known.
    pub fn get(&self, link: &str) -> Option<LinkPreview> {
        self.0.get(link).cloned()
    }
}
