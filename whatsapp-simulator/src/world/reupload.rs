//! A companion found a file expired: its phone brings it to the media host again and says where it is.

use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node};

use super::address::{Address, Addressing};
use super::media::retry::{Reupload, answer, is_genuine};
use super::phone::Handset;
use super::stanza::Stanza;
use super::{World, lock, now};

/// The phone has no such message, or nothing in it to upload.
const NOT_FOUND: u8 = 2;
/// The request does not open with the file's key.
const NOT_DECRYPTED: u8 = 3;

impl World {
    pub(super) fn reupload(&self, handset: &Handset, device: u16, id: &str, request: &Reupload) {
        let at = Address::new(handset.account, device);
        let Some(names) = self.names(at) else { return };
        let what = self.file_again(handset, id, request);
        let notification = notification(&names.user(Addressing::Pn), id, what, request.about.clone());
        if let Some(companion) = lock(&self.state).companion_mut(at) {
            companion.line.deliver(Stanza::Raw(notification));
        }
        self.changed();
    }

    /// The sealed new path, or the code of why there is none.
    fn file_again(&self, handset: &Handset, id: &str, request: &Reupload) -> Result<(Vec<u8>, [u8; 12]), u8> {
        // A message is known by who wrote it, too.
        let own = request.about.attrs().optional_bool("from_me");
        let attachment = {
            let chat = lock(&handset.chat);
            chat.find(id).filter(|message| message.from_me == own).and_then(|message| message.media().cloned())
        };
        let attachment = attachment.ok_or(NOT_FOUND)?;
        if !is_genuine(request, &attachment.key, id) {
            return Err(NOT_DECRYPTED);
        }
        let object = self.media.again(&attachment.direct_path, handset.account).map_err(|_| NOT_FOUND)?;
        self.count(Address::phone(handset.account), |c| &c.uploads);
        answer(&attachment.key, id, object.direct_path()).ok_or(NOT_FOUND)
    }
}

fn notification(from: &Jid, id: &str, what: Result<(Vec<u8>, [u8; 12]), u8>, about: Node) -> Node {
    let what = match what {
        Ok((ciphertext, iv)) => NodeBuilder::new("encrypt")
            .children([
                NodeBuilder::new("enc_p").bytes(ciphertext).build(),
                NodeBuilder::new("enc_iv").bytes(iv.to_vec()).build(),
            ])
            .build(),
        Err(code) => NodeBuilder::new("error").attr("code", u32::from(code)).build(),
    };
    NodeBuilder::new("notification")
        .attr("from", from)
        .attr("type", "mediaretry")
        .attr("id", id)
        .attr("t", now())
        .children([what, about])
        .build()
}
