//! The client's payload in the handshake: it logs in, or it wants to be paired.

use waproto::buffa::{DecodeError, Message as _};
use waproto::whatsapp as wa;

use super::fields::number;
use crate::world::keys::{DeviceKeys, Key, SignedPrekey};
use crate::world::pairing::Registration;

/// What a client wants.
#[derive(Debug)]
pub(crate) enum Payload {
    Login { username: u64, device: u16 },
    Register(Box<Registration>),
}

/// The payload makes no sense.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PayloadError {
    #[error("the client payload cannot be read: {0}")]
    Decode(#[from] DecodeError),
    #[error("the client payload lacks {0}")]
    Missing(&'static str),
}

/// Reads a payload; `noise_key` is the static key that the handshake proved.
pub(crate) fn parse(payload: &[u8], noise_key: Key) -> Result<Payload, PayloadError> {
    use PayloadError::Missing;
    let payload = wa::ClientPayload::decode_from_slice(payload)?;
    if let Some(username) = payload.username {
        let device = payload.device.unwrap_or_default();
        return Ok(Payload::Login { username, device: u16::try_from(device).map_err(|_| Missing("a device number"))? });
    }
    let data = payload.device_pairing_data.into_option().ok_or(Missing("a user name and pairing data"))?;
    let key = |bytes: Option<Vec<u8>>, name| bytes.and_then(|b| Key::try_from(b).ok()).ok_or(Missing(name));
    let int = |bytes: Option<Vec<u8>>, name| bytes.as_deref().and_then(number).ok_or(Missing(name));
    let signed = SignedPrekey {
        id: int(data.e_skey_id, "a signed prekey id")?,
        key: key(data.e_skey_val, "a signed prekey")?,
        signature: data.e_skey_sig.filter(|s| s.len() == 64).ok_or(Missing("a prekey signature"))?,
    };
    let keys = DeviceKeys::new(int(data.e_regid, "a registration id")?, key(data.e_ident, "an identity key")?, signed);
    let props = data.device_props.as_deref().and_then(|p| wa::DeviceProps::decode_from_slice(p).ok());
    let platform = props.map(|p| {
        let os = p.os.unwrap_or_default();
        match p.platform_type {
            Some(kind) if os.is_empty() => format!("{kind:?}"),
            _ => os,
        }
    });
    let platform: String = platform.unwrap_or_default().chars().take(64).collect();
    Ok(Payload::Register(Box::new(Registration { noise_key, keys, platform })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use waproto::whatsapp::client_payload::DevicePairingRegistrationData;

    #[test]
    fn a_login_names_a_user_and_a_device() {
        let payload = wa::ClientPayload { username: Some(5511), device: Some(3), ..Default::default() };
        let parsed = parse(&payload.encode_to_vec(), [0; 32]).unwrap();
        assert!(matches!(parsed, Payload::Login { username: 5511, device: 3 }));
    }

    proptest! {
        #[test]
        fn any_payload_is_read_or_refused(payload: Vec<u8>) {
            let _ = parse(&payload, [0; 32]);
        }

        #[test]
        fn any_pairing_data_is_read_or_refused(regid: Option<Vec<u8>>, ident: Option<[u8; 32]>, id: Option<[u8; 3]>, value: Option<Vec<u8>>, signature: Option<Vec<u8>>, props: Option<Vec<u8>>) {
            let payload = wa::ClientPayload {
                device_pairing_data: Some(DevicePairingRegistrationData {
                    e_regid: regid,
                    e_ident: ident.map(Vec::from),
                    e_skey_id: id.map(Vec::from),
                    e_skey_val: value,
                    e_skey_sig: signature,
                    device_props: props,
                    ..Default::default()
                })
                .into(),
                ..Default::default()
            };
            let _ = parse(&payload.encode_to_vec(), [0; 32]);
        }
    }
}
