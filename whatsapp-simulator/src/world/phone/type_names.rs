//! What WhatsApp calls the kinds of message that a phone here does not know.

use waproto::buffa::Message as _;
use waproto::whatsapp as wa;

/// Field numbers of a message and their names.
const NAMES: [(u64, &str); 107] = [
    (1, "conversation"),
    (2, "senderKeyDistributionMessage"),
    (3, "imageMessage"),
    (4, "contactMessage"),
    (5, "locationMessage"),
    (6, "extendedTextMessage"),
    (7, "documentMessage"),
    (8, "audioMessage"),
    (9, "videoMessage"),
    (10, "call"),
    (11, "chat"),
    (12, "protocolMessage"),
    (13, "contactsArrayMessage"),
    (14, "highlyStructuredMessage"),
    (15, "fastRatchetKeySenderKeyDistributionMessage"),
    (16, "sendPaymentMessage"),
    (18, "liveLocationMessage"),
    (22, "requestPaymentMessage"),
    (23, "declinePaymentRequestMessage"),
    (24, "cancelPaymentRequestMessage"),
    (25, "templateMessage"),
    (26, "stickerMessage"),
    (28, "groupInviteMessage"),
    (29, "templateButtonReplyMessage"),
    (30, "productMessage"),
    (31, "deviceSentMessage"),
    (35, "messageContextInfo"),
    (36, "listMessage"),
    (37, "viewOnceMessage"),
    (38, "orderMessage"),
    (39, "listResponseMessage"),
    (40, "ephemeralMessage"),
    (41, "invoiceMessage"),
    (42, "buttonsMessage"),
    (43, "buttonsResponseMessage"),
    (44, "paymentInviteMessage"),
    (45, "interactiveMessage"),
    (46, "reactionMessage"),
    (47, "stickerSyncRmrMessage"),
    (48, "interactiveResponseMessage"),
    (49, "pollCreationMessage"),
    (50, "pollUpdateMessage"),
    (51, "keepInChatMessage"),
    (53, "documentWithCaptionMessage"),
    (54, "requestPhoneNumberMessage"),
    (55, "viewOnceMessageV2"),
    (56, "encReactionMessage"),
    (58, "editedMessage"),
    (59, "viewOnceMessageV2Extension"),
    (60, "pollCreationMessageV2"),
    (61, "scheduledCallCreationMessage"),
    (62, "groupMentionedMessage"),
    (63, "pinInChatMessage"),
    (64, "pollCreationMessageV3"),
    (65, "scheduledCallEditMessage"),
    (66, "ptvMessage"),
    (67, "botInvokeMessage"),
    (69, "callLogMesssage"),
    (70, "messageHistoryBundle"),
    (71, "encCommentMessage"),
    (72, "bcallMessage"),
    (74, "lottieStickerMessage"),
    (75, "eventMessage"),
    (76, "encEventResponseMessage"),
    (77, "commentMessage"),
    (78, "newsletterAdminInviteMessage"),
    (80, "placeholderMessage"),
    (82, "secretEncryptedMessage"),
    (83, "albumMessage"),
    (85, "eventCoverImage"),
    (86, "stickerPackMessage"),
    (87, "statusMentionMessage"),
    (88, "pollResultSnapshotMessage"),
    (90, "pollCreationOptionImageMessage"),
    (91, "associatedChildMessage"),
    (92, "groupStatusMentionMessage"),
    (93, "pollCreationMessageV4"),
    (95, "statusAddYours"),
    (96, "groupStatusMessage"),
    (97, "richResponseMessage"),
    (98, "statusNotificationMessage"),
    (99, "limitSharingMessage"),
    (100, "botTaskMessage"),
    (101, "questionMessage"),
    (102, "messageHistoryNotice"),
    (103, "groupStatusMessageV2"),
    (104, "botForwardedMessage"),
    (105, "statusQuestionAnswerMessage"),
    (106, "questionReplyMessage"),
    (107, "questionResponseMessage"),
    (109, "statusQuotedMessage"),
    (110, "statusStickerInteractionMessage"),
    (111, "pollCreationMessageV5"),
    (113, "newsletterFollowerInviteMessageV2"),
    (115, "pollResultSnapshotMessageV3"),
    (116, "newsletterAdminProfileMessage"),
    (117, "newsletterAdminProfileMessageV2"),
    (118, "spoilerMessage"),
    (119, "pollCreationMessageV6"),
    (120, "conditionalRevealMessage"),
    (121, "pollAddOptionMessage"),
    (122, "eventInviteMessage"),
    (123, "groupRootKeyShare"),
    (124, "paymentReminderMessage"),
    (125, "splitPaymentMessage"),
    (126, "newsletterAdminProfileStatusMessage"),
    (127, "rootSecretDistributeMessage"),
];

/// What goes along with a message and is none.
const COMPANIONS: [u64; 3] = [2, 15, 35];

/// A number in the form that protobuf uses; and what comes after it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().take(10).position(|byte| byte & 0x80 == 0)?;
    let number = bytes[..=end].iter().rev().fold(0_u64, |n, byte| n << 7 | u64::from(byte & 0x7f));
    Some((number, &bytes[end + 1..]))
}

/// The number of the first field that is a message of its own, in the encoded form: a kind that came after this program
/// was written is there too.
fn first_field(mut bytes: &[u8]) -> Option<u64> {
    while !bytes.is_empty() {
        let (tag, rest) = varint(bytes)?;
        let field = tag >> 3;
        if !COMPANIONS.contains(&field) {
            return Some(field);
        }
        let (length, rest) = varint(rest)?;
        bytes = rest.get(usize::try_from(length).ok()?..)?;
    }
    None
}

/// The name of what a message holds; `None` if it holds nothing of its own.
pub(super) fn type_name(message: &wa::Message) -> Option<String> {
    let field = first_field(&message.encode_to_vec())?;
    let known = NAMES.iter().find(|(number, _)| *number == field);
    Some(known.map_or_else(|| format!("field{field}"), |(_, name)| (*name).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_known_has_a_name() {
        use wa::message::{GroupInviteMessage, ListMessage};
        let list = wa::Message { list_message: Some(ListMessage::default()).into(), ..Default::default() };
        assert_eq!(type_name(&list).as_deref(), Some("listMessage"));
        let context = wa::MessageContextInfo { message_secret: Some(vec![1; 32]), ..Default::default() };
        let alone = wa::Message { message_context_info: Some(context).into(), ..Default::default() };
        assert_eq!(type_name(&alone), None);
        let invite = wa::Message { group_invite_message: Some(GroupInviteMessage::default()).into(), ..alone };
        assert_eq!(type_name(&invite).as_deref(), Some("groupInviteMessage"));
        // Field 1000, of two bytes.
        assert_eq!(first_field(&[0xc2, 0x3e, 2, 8, 1]), Some(1000));
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_first_field_or_not(bytes: Vec<u8>) {
            let _ = first_field(&bytes);
        }
    }
}
