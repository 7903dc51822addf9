//! The name by which a gateway knows one of its customers.

use std::{borrow::Borrow, fmt, str::FromStr};

/// A tenant's id: 1 to 128 characters of `A–Z a–z 0–9 . _ : @ -`, compared exactly.
///
/// It never becomes part of a path: the store keeps its files under a digest of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Box<str>);

/// Why a text is not a [`TenantId`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a tenant id has 1 to 128 characters of A-Z a-z 0-9 . _ : @ -")]
pub struct InvalidTenantId;

impl TenantId {
    /// The id as it came.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantId {
    type Err = InvalidTenantId;

    fn from_str(text: &str) -> Result<Self, InvalidTenantId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:@-".contains(&byte);
        if (1..=128).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidTenantId)
        }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Borrow<str> for TenantId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_what_the_contract_names() {
        for id in ["a", "Acme-1", "user@example.com", "a.b_c:d", &"x".repeat(128)] {
            assert_eq!(id.parse::<TenantId>().unwrap().as_str(), id);
        }
    }

    #[test]
    fn refuses_everything_else() {
        let long = "x".repeat(129);
        for id in ["", "../etc", "a/b", "a b", "é", "a\0", ":memory:?x", "a\n", &long] {
            assert_eq!(id.parse::<TenantId>(), Err(InvalidTenantId), "{id:?}");
        }
    }

    #[test]
    fn compares_exactly() {
        assert_ne!("Acme".parse::<TenantId>(), "acme".parse());
    }

    proptest! {
        #[test]
        fn never_accepts_a_path_separator_or_changes_the_text(text in ".{0,140}") {
            if let Ok(id) = text.parse::<TenantId>() {
                prop_assert_eq!(id.as_str(), text.as_str());
                prop_assert!(!text.contains(['/', '\\', '\0', '%', '?']));
                prop_assert!(text.len() <= 128);
            }
        }
    }
}
