//! The keys in a retry receipt: with them the message is encrypted anew, for a session that the device knows.

use whatsapp_rust::{
    Client, Jid,
    wacore::{
        adv::{AdvValidation, validate_adv_with_identity_key},
        iq::prekeys::{OneTimePreKeyNode, SignedPreKeyNode},
        libsignal::protocol::{PreKeyBundle, PublicKey},
        protocol::{ProtocolNode, retry::extract_registration_id_from_node_ref},
        types::jid::JidExt,
    },
    wacore_binary::NodeRef,
};

/// Why there is no session that the device can read.
pub enum InvalidKeys {
    /// The keys are not the device's, or none.
    Refused,
    /// Something else went wrong.
    NotNow,
}

/// Begins a session with the keys that came with a receipt. Without keys an old one is given up if the device is another
/// than it was, or has asked before: then the server is asked for keys.
pub(in crate::whatsapp) async fn renew_session(
    client: &Client,
    device: &Jid,
    count: u8,
    receipt: &NodeRef<'_>,
) -> Result<(), InvalidKeys> {
    let signal = client.signal();
    let registration = extract_registration_id_from_node_ref(receipt);
    let known = signal.session_info(device).await.map_err(|_| InvalidKeys::NotNow)?;
    let is_another = known.is_some_and(|known| {
        let (known, told) = (known.registration_id, registration.unwrap_or_default());
        known != 0 && told != 0 && known != told
    });
    let Some(keys) = receipt.get_optional_child("keys") else {
        if is_another || count > 1 {
            let given_up = signal.delete_sessions(std::slice::from_ref(device)).await;
            given_up.map_err(|_| InvalidKeys::NotNow)?;
        }
        return Ok(());
    };
    // One's own devices keep their identity; WhatsApp Web refuses another one too.
    let own = [client.pn(), client.lid()];
    if is_another && own.iter().flatten().any(|own| own.user == device.user && own.server == device.server) {
        return Err(InvalidKeys::Refused);
    }
    let account = account_key(client, device).await;
    let bundle = bundle(device, registration, keys, account.as_ref()).ok_or(InvalidKeys::Refused)?;
    // What does not fit together is refused here: the signature of the signed key is looked at.
    signal.install_prekey_bundle(device, &bundle).await.map(drop).map_err(|_| InvalidKeys::Refused)
}

/// The keys, if they are well-formed and, of a companion, vouched for by its account.
fn bundle(
    device: &Jid,
    registration: Option<u32>,
    keys: &NodeRef<'_>,
    account: Option<&[u8; 32]>,
) -> Option<PreKeyBundle> {
    let bytes = |name: &str| keys.get_optional_child(name)?.content_bytes();
    let identity = bytes("identity")?;
    if device.device != 0
        && let Some(vouched) = bytes("device-identity")
        && let AdvValidation::Invalid = validate_adv_with_identity_key(vouched, identity.try_into().ok()?, account)
    {
        return None;
    }
    let prekey = OneTimePreKeyNode::try_from_node_ref(keys.get_optional_child("key")?).ok()?;
    let signed = SignedPreKeyNode::try_from_node_ref(keys.get_optional_child("skey")?).ok()?;
    let signature: [u8; 64] = signed.signature.as_slice().try_into().ok()?;
    let key = |bytes: &[u8]| PublicKey::from_djb_public_key_bytes(bytes).ok();
    PreKeyBundle::new(
        registration.filter(|id| *id != 0)?,
        u32::from(device.device).into(),
        Some((prekey.id.into(), key(&prekey.public_bytes)?)),
        signed.id.into(),
        key(&signed.public_bytes)?,
        signature.into(),
        key(identity)?.into(),
    )
    .ok()
}

/// The key of the account that a companion belongs to, as far as it is known.
async fn account_key(client: &Client, device: &Jid) -> Option<[u8; 32]> {
    let account = device.with_device(0);
    let lid = client.get_lid_pn_entry(&device.to_non_ad()).await.ok().flatten().map(|entry| Jid::lid(&*entry.lid));
    let backend = client.persistence_manager().backend();
    for name in lid.into_iter().chain([account]) {
        if let Ok(Some(key)) = backend.load_identity(name.to_protocol_address().as_str()).await {
            return Some(key);
        }
    }
    None
}
