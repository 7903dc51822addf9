//! The server's Noise key and the certificate chain that vouches for it.
//!
//! The chain is built and signed as WhatsApp's is: a root signs an intermediate, which signs the leaf (the Noise
//! static key), by XEdDSA. Only the root is another one, made at random, so a client that checks the chain against
//! WhatsApp's root refuses this server, as it should.

use rand::rngs::StdRng;
use wacore_libsignal::protocol::{CurveError, KeyPair};
use waproto::buffa::Message as _;
use waproto::whatsapp::CertChain;
use waproto::whatsapp::cert_chain::NoiseCertificate;
use waproto::whatsapp::cert_chain::noise_certificate::Details;

use crate::world::keys::Key;
use crate::world::now;
use crate::world::phone::signal::raw;

/// The serial number by which the intermediate certificate names WhatsApp's root.
const ROOT_SERIAL: u32 = 0;
const INTERMEDIATE_SERIAL: u32 = 1;
const LEAF_SERIAL: u32 = 2;

const YEAR: i64 = 365 * 24 * 60 * 60;

/// The chain could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("signing the certificate chain failed: {0}")]
pub struct TrustError(#[from] CurveError);

/// A server's Noise key with its certificate chain. Two simulators with the same one are the same server to a client
/// that remembers the key.
#[derive(Clone)]
pub struct ServerIdentity {
    root: Key,
    static_key: KeyPair,
    chain: Vec<u8>,
}

impl std::fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerIdentity").finish_non_exhaustive()
    }
}

impl ServerIdentity {
    /// Makes a root, an intermediate and a leaf, valid from yesterday for a year.
    ///
    /// # Errors
    /// [`TrustError`] if signing fails.
    pub fn generate() -> Result<Self, TrustError> {
        let rng = &mut rand::make_rng::<StdRng>();
        let (root, intermediate, leaf) = (KeyPair::generate(rng), KeyPair::generate(rng), KeyPair::generate(rng));
        let chain = CertChain {
            intermediate: Some(certify(&root, &intermediate, INTERMEDIATE_SERIAL, ROOT_SERIAL)?).into(),
            leaf: Some(certify(&intermediate, &leaf, LEAF_SERIAL, INTERMEDIATE_SERIAL)?).into(),
        };
        Ok(Self { root: raw(&root.public_key), static_key: leaf, chain: chain.encode_to_vec() })
    }

    /// The root's public key: a client whose pinned root can be replaced by it trusts this server for good reasons.
    pub fn root_key(&self) -> [u8; 32] {
        self.root
    }

    pub(crate) fn static_key(&self) -> &KeyPair {
        &self.static_key
    }

    pub(crate) fn chain(&self) -> &[u8] {
        &self.chain
    }
}

fn certify(
    issuer: &KeyPair,
    subject: &KeyPair,
    serial: u32,
    issuer_serial: u32,
) -> Result<NoiseCertificate, CurveError> {
    let details = Details {
        serial: Some(serial),
        issuer_serial: Some(issuer_serial),
        key: Some(subject.public_key.public_key_bytes().to_vec()),
        not_before: u64::try_from(now() - YEAR / 365).ok(),
        not_after: u64::try_from(now() + YEAR).ok(),
    }
    .encode_to_vec();
    let signature = issuer.calculate_signature(&details, &mut rand::make_rng::<StdRng>())?;
    Ok(NoiseCertificate { details: Some(details), signature: Some(signature.to_vec()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wacore_libsignal::protocol::PublicKey;

    #[test]
    fn each_certificate_is_signed_by_the_one_above_it() {
        let identity = ServerIdentity::generate().unwrap();
        let chain = CertChain::decode_from_slice(identity.chain()).unwrap();
        let details = |c: &NoiseCertificate| Details::decode_from_slice(c.details.as_deref().unwrap()).unwrap();
        let (intermediate, leaf) = (details(&chain.intermediate), details(&chain.leaf));
        assert_eq!(intermediate.issuer_serial, Some(ROOT_SERIAL));
        assert_eq!(leaf.issuer_serial, intermediate.serial);
        assert_eq!(leaf.key.as_deref(), Some(identity.static_key.public_key.public_key_bytes()));
        let root = PublicKey::from_djb_public_key_bytes(&identity.root_key()).unwrap();
        let (signed, signature) = (&chain.intermediate.details, &chain.intermediate.signature);
        assert!(root.verify_signature(signed.as_deref().unwrap(), signature.as_deref().unwrap()));
        let key = PublicKey::from_djb_public_key_bytes(intermediate.key.as_deref().unwrap()).unwrap();
        let (signed, signature) = (chain.leaf.details.as_deref().unwrap(), chain.leaf.signature.as_deref().unwrap());
        assert!(key.verify_signature(signed, signature));
        assert!(!key.verify_signature(b"something else", signature));
        let whatsapp = PublicKey::from_djb_public_key_bytes(&wacore_noise::WA_CERT_PUB_KEY).unwrap();
        let intermediate = &chain.intermediate;
        let (signed, signature) =
            (intermediate.details.as_deref().unwrap(), intermediate.signature.as_deref().unwrap());
        assert!(!whatsapp.verify_signature(signed, signature), "WhatsApp's root did not sign this");
    }
}
