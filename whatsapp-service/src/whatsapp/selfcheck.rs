//! Proves at start that this build tells WhatsApp's servers from forgeries.
//!
//! The library can be built to accept any server (`danger-skip-cert-chain-verify`), and Cargo unifies features across a
//! build, so that another package can switch that on without a trace in this one. A binary that would trust any server
//! must not hold anyone's session.

use whatsapp_rust::{
    wacore::handshake::HandshakeUtils,
    waproto::{
        buffa::{Message, MessageField},
        whatsapp::{CertChain, cert_chain::NoiseCertificate, cert_chain::noise_certificate},
    },
};

/// The key that the forged chain vouches for.
const FORGED_KEY: [u8; 32] = [0x42; 32];

/// Whether the library refuses a certificate chain that WhatsApp did not sign.
pub fn refuses_forged_certificates() -> bool {
    HandshakeUtils::verify_server_cert(&forged_chain(), &FORGED_KEY).is_err()
}

/// A chain that is right in every respect but its signatures.
fn forged_chain() -> Vec<u8> {
    let certificate = |serial, issuer_serial| NoiseCertificate {
        details: Some(
            noise_certificate::Details {
                serial: Some(serial),
                issuer_serial: Some(issuer_serial),
                key: Some(FORGED_KEY.to_vec()),
                not_before: Some(0),
                not_after: Some(u64::from(u32::MAX)),
            }
            .encode_to_vec(),
        ),
        signature: Some(vec![0; 64]),
    };
    CertChain { leaf: MessageField::some(certificate(2, 1)), intermediate: MessageField::some(certificate(1, 0)) }
        .encode_to_vec()
}
