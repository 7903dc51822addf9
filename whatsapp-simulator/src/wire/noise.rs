//! The Noise handshake, as the server: XX, the shorter IK of a client that remembers the server's key, and XXfallback
//! when what it remembers is out of date.

use wacore_binary::consts::{NOISE_PATTERN_IK, NOISE_PATTERN_XX, NOISE_PATTERN_XXFALLBACK, WA_CONN_HEADER};
use wacore_libsignal::protocol::KeyPair;
use wacore_noise::{HandshakeError, NoiseCipher, NoiseHandshake};
use waproto::buffa::{DecodeError, Message as _};
use waproto::whatsapp::HandshakeMessage;
use waproto::whatsapp::handshake_message::ServerHello;

use super::trust::ServerIdentity;
use crate::world::keys::Key;

/// The client did not get through the handshake.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoiseError {
    #[error("not a handshake message: {0}")]
    Decode(#[from] DecodeError),
    #[error("the handshake message lacks {0}")]
    Missing(&'static str),
    #[error("handshake: {0}")]
    Handshake(#[from] HandshakeError),
}

/// What the handshake leaves: both directions' ciphers, who the client is, and what it said.
pub(crate) struct Established {
    pub(crate) incoming: NoiseCipher,
    pub(crate) outgoing: NoiseCipher,
    pub(crate) client: Key,
    pub(crate) payload: Vec<u8>,
    pub(crate) ik: bool,
}

/// The answer to the client's first message.
pub(crate) enum Answer {
    /// XX: one more message of the client is needed.
    Continue(Vec<u8>, Box<Pending>),
    /// IK: that was all.
    Done(Vec<u8>, Box<Established>),
}

/// A handshake that waits for the client's last message.
pub(crate) struct Pending {
    noise: NoiseHandshake,
    ephemeral: KeyPair,
}

fn key(bytes: Option<Vec<u8>>, name: &'static str) -> Result<Key, NoiseError> {
    bytes.and_then(|b| Key::try_from(b).ok()).ok_or(NoiseError::Missing(name))
}

/// Answers a ClientHello.
pub(crate) fn answer(server: &ServerIdentity, frame: &[u8]) -> Result<Answer, NoiseError> {
    let message = HandshakeMessage::decode_from_slice(frame)?;
    let hello = message.client_hello.into_option().ok_or(NoiseError::Missing("a client hello"))?;
    let theirs = key(hello.ephemeral, "an ephemeral key")?;
    let ephemeral = crate::world::phone::signal::new_key_pair();
    if let (Some(client), Some(payload)) = (hello.r#static, hello.payload) {
        match accept_ik(server, &ephemeral, &theirs, &client, &payload) {
            Ok((reply, established)) => return Ok(Answer::Done(reply, Box::new(established))),
            Err(error) => tracing::debug!(%error, "falling back from IK to XX"),
        }
        return continue_xx(server, NOISE_PATTERN_XXFALLBACK, ephemeral, &theirs);
    }
    continue_xx(server, NOISE_PATTERN_XX, ephemeral, &theirs)
}

fn continue_xx(server: &ServerIdentity, pattern: &str, ephemeral: KeyPair, theirs: &Key) -> Result<Answer, NoiseError> {
    let ours = server.static_key();
    let mut noise = NoiseHandshake::new(pattern, &WA_CONN_HEADER)?;
    noise.authenticate(theirs);
    noise.authenticate(ephemeral.public_key.public_key_bytes());
    noise.mix_shared_secret(ephemeral.private_key.serialize(), theirs)?;
    let encrypted_static = noise.encrypt(ours.public_key.public_key_bytes())?;
    noise.mix_shared_secret(ours.private_key.serialize(), theirs)?;
    let chain = noise.encrypt(server.chain())?;
    let reply = server_hello(&ephemeral, Some(encrypted_static), chain);
    Ok(Answer::Continue(reply, Box::new(Pending { noise, ephemeral })))
}

fn accept_ik(
    server: &ServerIdentity,
    ephemeral: &KeyPair,
    theirs: &Key,
    client: &[u8],
    payload: &[u8],
) -> Result<(Vec<u8>, Established), NoiseError> {
    let ours = server.static_key();
    let mut noise = NoiseHandshake::new(NOISE_PATTERN_IK, &WA_CONN_HEADER)?;
    noise.authenticate(ours.public_key.public_key_bytes());
    noise.authenticate(theirs);
    noise.mix_shared_secret(ours.private_key.serialize(), theirs)?;
    let client = key(Some(noise.decrypt(client)?), "a static key")?;
    noise.mix_shared_secret(ours.private_key.serialize(), &client)?;
    let payload = noise.decrypt(payload)?;
    noise.authenticate(ephemeral.public_key.public_key_bytes());
    noise.mix_shared_secret(ephemeral.private_key.serialize(), theirs)?;
    noise.mix_shared_secret(ephemeral.private_key.serialize(), &client)?;
    let reply = server_hello(ephemeral, None, noise.encrypt(server.chain())?);
    let (incoming, outgoing) = noise.finish()?;
    Ok((reply, Established { incoming, outgoing, client, payload, ik: true }))
}

fn server_hello(ephemeral: &KeyPair, encrypted_static: Option<Vec<u8>>, chain: Vec<u8>) -> Vec<u8> {
    HandshakeMessage {
        server_hello: Some(ServerHello {
            ephemeral: Some(ephemeral.public_key.public_key_bytes().to_vec()),
            r#static: encrypted_static,
            payload: Some(chain),
            ..Default::default()
        })
        .into(),
        ..Default::default()
    }
    .encode_to_vec()
}

impl Pending {
    /// Takes the ClientFinish.
    pub(crate) fn finish(mut self, frame: &[u8]) -> Result<Established, NoiseError> {
        let message = HandshakeMessage::decode_from_slice(frame)?;
        let finish = message.client_finish.into_option().ok_or(NoiseError::Missing("a client finish"))?;
        let encrypted = finish.r#static.ok_or(NoiseError::Missing("a static key"))?;
        let client = key(Some(self.noise.decrypt(&encrypted)?), "a static key")?;
        self.noise.mix_shared_secret(self.ephemeral.private_key.serialize(), &client)?;
        let payload = self.noise.decrypt(&finish.payload.ok_or(NoiseError::Missing("a payload"))?)?;
        let (incoming, outgoing) = self.noise.finish()?;
        Ok(Established { incoming, outgoing, client, payload, ik: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::phone::signal::{new_key_pair, raw};
    use proptest::prelude::*;
    use wacore_noise::{HandshakeUtils, IkHandshakeState, IkServerHelloOutcome};

    /// The client's side of XX, by hand: the library's refuses our root, unless it is built not to look.
    fn xx_client(
        server: &ServerIdentity,
        pattern: &str,
        hello: &[u8],
        ephemeral: &KeyPair,
        client: &KeyPair,
    ) -> Established {
        let Answer::Continue(reply, pending) = answer(server, hello).unwrap() else { panic!("expected XX") };
        let (theirs, encrypted_static, chain) = HandshakeUtils::parse_server_hello(&reply).unwrap();
        let mut noise = NoiseHandshake::new(pattern, &WA_CONN_HEADER).unwrap();
        noise.authenticate(ephemeral.public_key.public_key_bytes());
        noise.authenticate(&theirs);
        noise.mix_shared_secret(ephemeral.private_key.serialize(), &theirs).unwrap();
        let server_key = noise.decrypt(&encrypted_static).unwrap();
        noise.mix_shared_secret(ephemeral.private_key.serialize(), &server_key).unwrap();
        let chain = noise.decrypt(&chain).unwrap();
        assert_eq!(chain, server.chain());
        let encrypted = noise.encrypt(client.public_key.public_key_bytes()).unwrap();
        noise.mix_shared_secret(client.private_key.serialize(), &theirs).unwrap();
        let payload = noise.encrypt(b"payload").unwrap();
        let finish = HandshakeUtils::build_client_finish(encrypted, payload).encode_to_vec();
        let established = pending.finish(&finish).unwrap();
        let (write, read) = noise.finish().unwrap();
        let sealed = write.encrypt_with_counter(0, b"up").unwrap();
        let mut opened = sealed;
        established.incoming.decrypt_in_place_with_counter(0, &mut opened).unwrap();
        assert_eq!(opened, b"up");
        let mut opened = established.outgoing.encrypt_with_counter(0, b"down").unwrap();
        read.decrypt_in_place_with_counter(0, &mut opened).unwrap();
        assert_eq!(opened, b"down");
        established
    }

    #[test]
    fn xx_establishes_both_directions() {
        let (server, ephemeral, client) = (ServerIdentity::generate().unwrap(), new_key_pair(), new_key_pair());
        let hello = HandshakeUtils::build_client_hello(ephemeral.public_key.public_key_bytes()).encode_to_vec();
        let established = xx_client(&server, NOISE_PATTERN_XX, &hello, &ephemeral, &client);
        assert_eq!((established.client, established.payload.as_slice()), (raw(&client.public_key), &b"payload"[..]));
        assert!(!established.ik);
    }

    #[test]
    fn ik_is_answered_at_once() {
        let (server, client) = (ServerIdentity::generate().unwrap(), new_key_pair());
        let known = raw(&server.static_key().public_key);
        let mut state = IkHandshakeState::new(client.clone(), known, b"payload".to_vec(), &WA_CONN_HEADER).unwrap();
        let Answer::Done(reply, established) = answer(&server, &state.build_client_hello().unwrap()).unwrap() else {
            panic!("expected IK")
        };
        assert!(matches!(state.read_server_hello(&reply).unwrap(), IkServerHelloOutcome::Continue(_)));
        assert_eq!(established.client, raw(&client.public_key));
    }

    #[test]
    fn a_key_that_is_out_of_date_falls_back_to_xx() {
        let (old, new) = (ServerIdentity::generate().unwrap(), ServerIdentity::generate().unwrap());
        let known = raw(&old.static_key().public_key);
        let mut state = IkHandshakeState::new(new_key_pair(), known, Vec::new(), &WA_CONN_HEADER).unwrap();
        let hello = state.build_client_hello().unwrap();
        let Answer::Continue(reply, _) = answer(&new, &hello).unwrap() else { panic!("expected a fallback") };
        assert!(matches!(state.read_server_hello(&reply).unwrap(), IkServerHelloOutcome::Fallback(_)));
    }

    #[test]
    fn the_fallback_establishes_both_directions() {
        let (server, ephemeral, client) = (ServerIdentity::generate().unwrap(), new_key_pair(), new_key_pair());
        let ours = ephemeral.public_key.public_key_bytes();
        let hello = HandshakeUtils::build_ik_client_hello(ours, vec![1; 48], vec![2; 64]).encode_to_vec();
        let established = xx_client(&server, NOISE_PATTERN_XXFALLBACK, &hello, &ephemeral, &client);
        assert_eq!(established.client, raw(&client.public_key));
    }

    proptest! {
        #[test]
        fn any_first_frame_is_answered_or_refused(frame: Vec<u8>, ephemeral: [u8; 32], parts: Option<(Vec<u8>, Vec<u8>)>) {
            let server = ServerIdentity::generate().unwrap();
            let _ = answer(&server, &frame);
            let mut hello = HandshakeUtils::build_client_hello(&ephemeral);
            if let Some((encrypted, payload)) = parts {
                hello = HandshakeUtils::build_ik_client_hello(&ephemeral, encrypted, payload);
            }
            if let Ok(Answer::Continue(_, pending)) = answer(&server, &hello.encode_to_vec()) {
                prop_assert!(pending.finish(&frame).is_err());
            }
        }
    }
}
