//! What tests need of the world: a companion that is linked without the ceremony.

use wacore_binary::Jid;

use super::accounts::Companion;
use super::address::{Address, Names};
use super::keys::{DeviceKeys, Key};
use super::numbers::Phone;
use super::phone::signal::Signal;
use super::queue::Line;
use super::{World, lock};

impl World {
    /// Links a companion with these keys, as if it had been paired, to the account of a phone.
    pub(crate) fn link_for_test(&self, phone: &Phone, noise_key: Key, signal: &mut Signal) -> (Address, Names) {
        let bundles: Vec<_> = (0..20).map(|_| signal.bundle()).collect();
        let first = &bundles[0];
        let mut keys = DeviceKeys::new(first.registration_id, first.identity, first.signed_prekey.clone());
        keys.upload(first.signed_prekey.clone(), bundles.iter().filter_map(|b| b.prekey).collect());
        let (at, key_index, names) = {
            let mut state = lock(&self.state);
            let id = state.find(phone).unwrap();
            let account = state.account_mut(id).unwrap();
            let (device, key_index) = account.next_companion();
            (Address::new(id, device), key_index, account.names.clone())
        };
        let companion = Companion {
            noise_key,
            keys,
            identity: Vec::new(),
            key_index,
            platform: "test".to_owned(),
            push_name: String::new(),
            available: false,
            has_app_state_key: true,
            line: Line::default(),
        };
        self.link_companion(at, companion);
        (at, names)
    }

    /// Where an account's phone is, by its number.
    pub(crate) fn phone_for_test(&self, phone: &Phone) -> (Address, Jid) {
        let state = lock(&self.state);
        let account = state.account(state.find(phone).unwrap()).unwrap();
        (Address::phone(account.id), account.names.user(super::Addressing::Lid))
    }
}
