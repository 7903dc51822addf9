//! Votes on polls: encrypted with a secret that only those know who have the poll.

use std::collections::HashMap;

use whatsapp_rust::{
    types::message::MessageInfo,
    wacore::poll::{PollVoteCiphertext, compute_option_hash, decrypt_poll_vote_with_secret},
    waproto::whatsapp::message::PollUpdateMessage,
};

use crate::store::kept::PollKey;

/// What is chosen by a vote, if this poll is the one that it is about.
pub fn chosen(vote: &PollUpdateMessage, info: &MessageInfo, poll_id: &str, poll: &PollKey) -> Option<Vec<String>> {
    let (payload, iv) = (vote.vote.enc_payload.as_deref()?, vote.vote.enc_iv.as_deref()?);
    let voters = [Some(&info.source.sender), info.source.sender_alt.as_ref()];
    // A person has two names, and both sides of a vote may go by either.
    let names = poll.creators.iter().flat_map(|creator| voters.iter().flatten().map(move |voter| (creator, voter)));
    let hashes = names
        .map(|(creator, voter)| {
            let ciphertext = PollVoteCiphertext { enc_payload: payload, enc_iv: iv };
            let voter = voter.to_non_ad_string();
            decrypt_poll_vote_with_secret(ciphertext, &poll.secret, poll_id, creator, &voter)
        })
        .find_map(Result::ok)?;
    let options: HashMap<[u8; 32], &String> =
        poll.options.iter().map(|option| (compute_option_hash(option), option)).collect();
    Some(hashes.iter().filter_map(|hash| options.get(hash.as_slice()).map(|&option| option.clone())).collect())
}
