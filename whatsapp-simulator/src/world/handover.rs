//! A companion was told that there is a message, and not given it: it asks its phone, which has it
//! (`PLACEHOLDER_MESSAGE_RESEND`).

use waproto::buffa::Message as _;
use waproto::whatsapp as wa;
use waproto::whatsapp::message::peer_data_operation_request_response_message::{
    PeerDataOperationResult, peer_data_operation_result::PlaceholderMessageResendResponse,
};

use super::address::{Address, Addressing};
use super::phone::{Handset, Task};
use super::writing::new_message_id;
use super::{World, lock, now};

/// What a request asks a phone to do. Of other data than messages it has none.
pub(super) fn asked_to_hand_over(
    device: u16,
    request: &str,
    asked: &wa::message::PeerDataOperationRequestMessage,
) -> Task {
    let keys = asked.placeholder_message_resend_request.iter();
    let ids = keys.filter_map(|one| one.message_key.as_option()?.id.clone()).collect();
    Task::HandOver { device, request: request.to_owned(), ids }
}

impl World {
    /// Gives a companion what it was not given. Of what is not there nothing is said.
    pub(super) fn hand_over(&self, handset: &Handset, device: u16, request: &str, ids: &[String]) {
        let results: Vec<_> = ids.iter().filter_map(|id| self.handed_over(handset, id)).collect();
        let at = Address::new(handset.account, device);
        let Some(names) = self.names(at).filter(|_| !results.is_empty()) else { return };
        let answer = wa::message::PeerDataOperationRequestResponseMessage {
            peer_data_operation_request_type: Some(
                wa::message::PeerDataOperationRequestType::PLACEHOLDER_MESSAGE_RESEND,
            ),
            stanza_id: Some(request.to_owned()),
            peer_data_operation_result: results,
        };
        let protocol = wa::message::ProtocolMessage {
            r#type: Some(wa::message::protocol_message::Type::PEER_DATA_OPERATION_REQUEST_RESPONSE_MESSAGE),
            peer_data_operation_request_response_message: Some(answer).into(),
            ..Default::default()
        };
        let message = wa::Message { protocol_message: Some(protocol).into(), ..Default::default() };
        match self.encrypt(handset, &[(at, message.encode_to_vec())]) {
            Ok(encs) => {
                let names = names.user(Addressing::Pn);
                let message = self.own_message(new_message_id(), names, encs, &message, Some("peer"));
                self.accept_message(Address::phone(handset.account), message, None);
            }
            Err(error) => tracing::warn!(%error, "a phone cannot hand a message over"),
        }
    }

    fn handed_over(&self, handset: &Handset, id: &str) -> Option<PeerDataOperationResult> {
        let (from, message) = lock(&handset.chat).withheld(id)?;
        let from_me = from == handset.account;
        let other = if from_me {
            let to = lock(&handset.chat).find(id)?.to.clone();
            lock(&self.state).registered(&super::Phone::parse(&to).ok()?)?
        } else {
            from
        };
        let key = wa::MessageKey {
            // Phones name people by their numbers here.
            remote_jid: Some(self.names(Address::phone(other))?.user(Addressing::Pn).to_string()),
            from_me: Some(from_me),
            id: Some(id.to_owned()),
            ..Default::default()
        };
        let whole = wa::WebMessageInfo {
            key: Some(key).into(),
            message: Some(wa::Message::decode_from_slice(&message).ok()?).into(),
            message_timestamp: u64::try_from(now()).ok(),
            ..Default::default()
        };
        let response = PlaceholderMessageResendResponse { web_message_info_bytes: Some(whole.encode_to_vec()) };
        Some(PeerDataOperationResult {
            placeholder_message_resend_response: Some(response).into(),
            ..Default::default()
        })
    }
}
