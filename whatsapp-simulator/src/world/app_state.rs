//! App state: the collections of settings that companions and phone share, kept as encrypted patches.

use wacore_appstate::hash::{HashState, generate_patch_mac};
use wacore_appstate::{encode_record, expand_app_state_keys};
use waproto::buffa::Message as _;
use waproto::whatsapp as wa;

use super::accounts::Account;
use super::address::{Address, Addressing};
use super::phone::AppStateKey;
use super::stanza::Stanza;
use super::{World, lock, now};

/// The collections that exist.
pub(crate) const NAMES: [&str; 5] =
    ["critical_block", "critical_unblock_low", "regular_high", "regular_low", "regular"];

/// The collection with the settings that a companion needs first.
const CRITICAL: &str = "critical_block";

/// The version that WhatsApp Web writes push names with.
const PUSH_NAME_VERSION: i32 = 1;

/// One collection: its patches from version 1 on.
#[derive(Debug, Default)]
pub(crate) struct Collection {
    patches: Vec<Vec<u8>>,
}

/// The outcome of a client's wish to add a patch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    Stored {
        version: u64,
    },
    /// Someone was faster; the client gets these patches and tries again.
    Conflict {
        patches: Vec<Vec<u8>>,
    },
    Unreadable,
}

impl Collection {
    pub(crate) fn version(&self) -> u64 {
        self.patches.len() as u64
    }

    /// The patches that lead on from a version.
    pub(crate) fn since(&self, version: u64) -> Vec<Vec<u8>> {
        let from = usize::try_from(version).unwrap_or(usize::MAX).min(self.patches.len());
        self.patches[from..].to_vec()
    }

    fn push(&mut self, based_on: u64, patch: &[u8]) -> Pushed {
        let Ok(mut patch) = wa::SyncdPatch::decode_from_slice(patch) else { return Pushed::Unreadable };
        if based_on != self.version() {
            return Pushed::Conflict { patches: self.since(based_on) };
        }
        let version = self.version() + 1;
        patch.version = Some(wa::SyncdVersion { version: Some(version) }).into();
        self.patches.push(patch.encode_to_vec());
        Pushed::Stored { version }
    }
}

impl Account {
    /// The phone writes its owner's name into the app state, once: that is where companions learn it.
    pub(crate) fn publish_push_name(&mut self) {
        if self.collections.contains_key(CRITICAL) {
            return;
        }
        let patch = push_name_patch(&self.name, &self.handset.app_state_key);
        let mut collection = Collection::default();
        collection.push(0, &patch);
        self.collections.insert(CRITICAL.to_owned(), collection);
    }
}

/// The first patch of the critical collection: one setting, the name.
fn push_name_patch(name: &str, key: &AppStateKey) -> Vec<u8> {
    let keys = expand_app_state_keys(&key.data);
    let value = wa::SyncActionValue {
        timestamp: Some(now() * 1000),
        push_name_setting: Some(wa::sync_action_value::PushNameSetting { name: Some(name.to_owned()) }).into(),
        ..Default::default()
    };
    let (mutation, _) = encode_record(
        wa::syncd_mutation::SyncdOperation::SET,
        br#"["setting_pushName"]"#,
        &value,
        &keys,
        &key.id,
        &rand::random(),
        PUSH_NAME_VERSION,
    );
    let mutations = vec![mutation];
    let mut hash = HashState::default();
    let (_, outcome) = hash.update_hash(&mutations, |_, _| Ok(None));
    if let Err(error) = outcome {
        tracing::error!(%error, "cannot hash the first app state patch");
    }
    hash.version = 1;
    let mut patch = wa::SyncdPatch {
        mutations,
        snapshot_mac: Some(hash.generate_snapshot_mac(CRITICAL, &keys.snapshot_mac)),
        key_id: Some(wa::KeyId { id: Some(key.id.clone()) }).into(),
        ..Default::default()
    };
    patch.patch_mac = Some(generate_patch_mac(&patch, CRITICAL, &keys.patch_mac, hash.version));
    patch.encode_to_vec()
}

impl World {
    /// What leads on from a version of a collection, and the version that it leads to.
    pub(crate) fn read_collection(&self, at: Address, name: &str, since: u64) -> (u64, Vec<Vec<u8>>) {
        let state = lock(&self.state);
        let collection = state.account(at.account).and_then(|account| account.collections.get(name));
        collection.map_or((0, Vec::new()), |c| (c.version(), c.since(since)))
    }

    /// A companion adds a patch; the other companions are told.
    pub(crate) fn push_patch(&self, at: Address, name: &str, based_on: u64, patch: &[u8]) -> Pushed {
        let mut state = lock(&self.state);
        let Some(account) = state.account_mut(at.account) else { return Pushed::Unreadable };
        let pushed = account.collections.entry(name.to_owned()).or_default().push(based_on, patch);
        if let Pushed::Stored { version } = pushed {
            let from = account.names.user(Addressing::Pn);
            for (_, companion) in account.companions.iter_mut().filter(|(device, _)| **device != at.device) {
                companion.line.deliver(Stanza::ServerSync {
                    id: self.next_id(),
                    from: from.clone(),
                    collection: name.to_owned(),
                    version,
                    timestamp: now(),
                });
            }
        }
        pushed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    #[test]
    fn the_push_name_patch_is_one_that_clients_accept() {
        let key = AppStateKey { id: vec![0, 0, 0, 0, 0, 1], data: vec![7; 32] };
        let mut collection = Collection::default();
        assert_eq!(collection.push(0, &push_name_patch("Ana", &key)), Pushed::Stored { version: 1 });
        let patch = wa::SyncdPatch::decode_from_slice(&collection.since(0)[0]).unwrap();
        let mut state = HashState::default();
        let result = wacore_appstate::process_patch(
            &patch,
            &mut state,
            |_| Ok(Arc::new(expand_app_state_keys(&key.data))),
            |_| Ok(None),
            true,
            CRITICAL,
        )
        .unwrap();
        let value = result.mutations[0].action_value.as_ref().unwrap();
        assert_eq!(value.push_name_setting.name.as_deref(), Some("Ana"));
    }

    #[test]
    fn a_patch_on_an_old_version_conflicts_and_learns_what_it_missed() {
        let patch = wa::SyncdPatch::default().encode_to_vec();
        let mut collection = Collection::default();
        assert_eq!(collection.push(0, &patch), Pushed::Stored { version: 1 });
        assert!(matches!(collection.push(0, &patch), Pushed::Conflict { patches } if patches.len() == 1));
        assert_eq!(collection.push(1, &patch), Pushed::Stored { version: 2 });
        assert_eq!(collection.since(1).len(), 1);
        assert!(collection.since(u64::MAX).is_empty());
    }

    proptest! {
        #[test]
        fn any_patch_is_stored_or_refused(patch: Vec<u8>, version: u64) {
            Collection::default().push(version, &patch);
        }
    }
}
