//! Faults as JSON: the body of `POST /admin/faults`, and the entries of `GET /admin/faults`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::world::{Fault, FaultKind, InvalidPhone, LoginFailure, NewChatQuota, Phone, ReachoutTimelock};

/// The body of `POST /admin/faults`, and an entry of `GET /admin/faults`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FaultSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drop_acks: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate_acks: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nack: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drop_messages: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forget_confirmations: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reachout_timelock: Option<ReachoutTimelock>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_chat_quota: Option<NewChatQuota>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refuse_strangers: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    garbled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    close_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stall_reads: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_conflict: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login_failure: Option<LoginFailure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login_delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refuse_connections: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offline_phone: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_devices: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drop_receipts: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    silent_success: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edge_routing: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_after_frames: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_expired: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_tokens_expired: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_damaged: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_upload_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_latency_ms: Option<u64>,
}

/// The body asks for nothing that can be done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FaultSpecError {
    #[error("the body names no fault")]
    Empty,
    #[error("phone: {0}")]
    Phone(#[from] InvalidPhone),
    #[error("{0} is either absent or true")]
    NotTrue(&'static str),
    #[error("times is at least 1")]
    NoTimes,
    #[error("streamError is a code of digits, streamConflict is replaced or device_removed")]
    Code,
    #[error("nack and reason are codes of 100 to 999")]
    Range,
    #[error(
        "the type of a reachoutTimelock, and the status of a newChatQuota, has 1 to 64 capital letters, digits and underscores"
    )]
    TimelockType,
    #[error("a delay is at most one day")]
    Delay,
}

/// The longest delay that can be asked for.
const MAX_DELAY_MS: u64 = 24 * 60 * 60 * 1000;

impl FaultSpec {
    /// The separate faults of one body; `phone` and `times` go for each of them.
    pub(crate) fn into_faults(self) -> Result<Vec<Fault>, FaultSpecError> {
        let phone = self.phone.as_deref().map(Phone::parse).transpose()?;
        if self.times == Some(0) {
            return Err(FaultSpecError::NoTimes);
        }
        let delay =
            |ms: u64| if ms <= MAX_DELAY_MS { Ok(Duration::from_millis(ms)) } else { Err(FaultSpecError::Delay) };
        let code = |code: u16| if (100..=999).contains(&code) { Ok(code) } else { Err(FaultSpecError::Range) };
        let named = |name: &Option<String>| {
            let fits = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_';
            let fits = |name: &String| (1..=64).contains(&name.len()) && name.bytes().all(fits);
            if name.as_ref().is_none_or(fits) { Ok(()) } else { Err(FaultSpecError::TimelockType) }
        };
        let mut kinds = Vec::new();
        if let Some(ms) = self.latency_ms {
            kinds.push(FaultKind::Latency(delay(ms)?));
        }
        if let Some(ms) = self.ack_delay_ms {
            kinds.push(FaultKind::AckDelay(delay(ms)?));
        }
        if let Some(ms) = self.close_after_ms {
            kinds.push(FaultKind::CloseAfter(delay(ms)?));
        }
        if let Some(nack) = self.nack {
            kinds.push(FaultKind::Nack(code(nack)?));
        }
        if let Some(timelock) = self.reachout_timelock {
            named(&timelock.kind)?;
            kinds.push(FaultKind::ReachoutTimelock(timelock));
        }
        if let Some(quota) = self.new_chat_quota {
            named(&quota.status)?;
            kinds.push(FaultKind::NewChatQuota(quota));
        }
        if let Some(failure) = self.login_failure {
            code(failure.reason)?;
            kinds.push(FaultKind::LoginFailure(failure));
        }
        if let Some(ms) = self.login_delay_ms {
            kinds.push(FaultKind::LoginDelay(delay(ms)?));
        }
        if let Some(error) = self.stream_error {
            let digits = (1..=6).contains(&error.len()) && error.bytes().all(|b| b.is_ascii_digit());
            kinds.push(if digits { FaultKind::StreamError(error) } else { return Err(FaultSpecError::Code) });
        }
        if let Some(conflict) = self.stream_conflict {
            let known = matches!(conflict.as_str(), "replaced" | "device_removed");
            kinds.push(if known { FaultKind::StreamConflict(conflict) } else { return Err(FaultSpecError::Code) });
        }
        if let Some(frames) = self.cut_after_frames {
            kinds.push(FaultKind::CutAfterFrames(frames));
        }
        if let Some(bytes) = self.cut_upload_after {
            kinds.push(FaultKind::CutUploadAfter(bytes));
        }
        if let Some(ms) = self.media_latency_ms {
            kinds.push(FaultKind::MediaLatency(delay(ms)?));
        }
        let switches = [
            ("dropAcks", self.drop_acks, FaultKind::DropAcks),
            ("duplicateAcks", self.duplicate_acks, FaultKind::DuplicateAcks),
            ("dropMessages", self.drop_messages, FaultKind::DropMessages),
            ("forgetConfirmations", self.forget_confirmations, FaultKind::ForgetConfirmations),
            ("unreadable", self.unreadable, FaultKind::Unreadable),
            ("refuseStrangers", self.refuse_strangers, FaultKind::RefuseStrangers),
            ("garbled", self.garbled, FaultKind::Garbled),
            ("stallReads", self.stall_reads, FaultKind::StallReads),
            ("refuseConnections", self.refuse_connections, FaultKind::RefuseConnections),
            ("offlinePhone", self.offline_phone, FaultKind::OfflinePhone),
            ("noDevices", self.no_devices, FaultKind::NoDevices),
            ("dropReceipts", self.drop_receipts, FaultKind::DropReceipts),
            ("silentSuccess", self.silent_success, FaultKind::SilentSuccess),
            ("edgeRouting", self.edge_routing, FaultKind::EdgeRouting),
            ("mediaExpired", self.media_expired, FaultKind::MediaExpired),
            ("mediaTokensExpired", self.media_tokens_expired, FaultKind::MediaTokensExpired),
            ("mediaDamaged", self.media_damaged, FaultKind::MediaDamaged),
        ];
        for (name, value, kind) in switches {
            match value {
                Some(true) => kinds.push(kind),
                Some(false) => return Err(FaultSpecError::NotTrue(name)),
                None => {}
            }
        }
        if kinds.is_empty() {
            return Err(FaultSpecError::Empty);
        }
        Ok(kinds.into_iter().map(|kind| Fault { kind, phone: phone.clone(), times: self.times }).collect())
    }
}

impl From<&Fault> for FaultSpec {
    fn from(fault: &Fault) -> Self {
        let ms = |d: &Duration| u64::try_from(d.as_millis()).ok();
        let mut spec =
            Self { phone: fault.phone.as_ref().map(ToString::to_string), times: fault.times, ..Self::default() };
        match &fault.kind {
            FaultKind::Latency(d) => spec.latency_ms = ms(d),
            FaultKind::DropAcks => spec.drop_acks = Some(true),
            FaultKind::AckDelay(d) => spec.ack_delay_ms = ms(d),
            FaultKind::DuplicateAcks => spec.duplicate_acks = Some(true),
            FaultKind::Nack(code) => spec.nack = Some(*code),
            FaultKind::DropMessages => spec.drop_messages = Some(true),
            FaultKind::ForgetConfirmations => spec.forget_confirmations = Some(true),
            FaultKind::Unreadable => spec.unreadable = Some(true),
            FaultKind::ReachoutTimelock(timelock) => spec.reachout_timelock = Some(timelock.clone()),
            FaultKind::NewChatQuota(quota) => spec.new_chat_quota = Some(quota.clone()),
            FaultKind::RefuseStrangers => spec.refuse_strangers = Some(true),
            FaultKind::Garbled => spec.garbled = Some(true),
            FaultKind::CloseAfter(d) => spec.close_after_ms = ms(d),
            FaultKind::StallReads => spec.stall_reads = Some(true),
            FaultKind::StreamError(code) => spec.stream_error = Some(code.clone()),
            FaultKind::StreamConflict(kind) => spec.stream_conflict = Some(kind.clone()),
            FaultKind::LoginFailure(failure) => spec.login_failure = Some(failure.clone()),
            FaultKind::LoginDelay(d) => spec.login_delay_ms = ms(d),
            FaultKind::RefuseConnections => spec.refuse_connections = Some(true),
            FaultKind::OfflinePhone => spec.offline_phone = Some(true),
            FaultKind::NoDevices => spec.no_devices = Some(true),
            FaultKind::DropReceipts => spec.drop_receipts = Some(true),
            FaultKind::SilentSuccess => spec.silent_success = Some(true),
            FaultKind::EdgeRouting => spec.edge_routing = Some(true),
            FaultKind::CutAfterFrames(frames) => spec.cut_after_frames = Some(*frames),
            FaultKind::MediaExpired => spec.media_expired = Some(true),
            FaultKind::MediaTokensExpired => spec.media_tokens_expired = Some(true),
            FaultKind::MediaDamaged => spec.media_damaged = Some(true),
            FaultKind::CutUploadAfter(bytes) => spec.cut_upload_after = Some(*bytes),
            FaultKind::MediaLatency(d) => spec.media_latency_ms = ms(d),
        }
        spec
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(json: &str) -> Result<Vec<Fault>, FaultSpecError> {
        serde_json::from_str::<FaultSpec>(json).unwrap().into_faults()
    }

    #[test]
    fn a_body_of_several_faults_comes_apart_and_reads_back() {
        let faults = parse(
            r#"{"phone":"5511999999999","times":3,"dropAcks":true,"latencyMs":50,
                "loginFailure":{"reason":402,"expire":60},"streamError":"515","streamConflict":"replaced",
                "dropMessages":true,"forgetConfirmations":true,"unreadable":true,"refuseStrangers":true,"garbled":true,"newChatQuota":{"total":20,"used":5,"cycleEnd":1770000000,"status":"FIRST_WARNING"},"mediaExpired":true,"mediaTokensExpired":true,"mediaDamaged":true,"cutUploadAfter":1000,"mediaLatencyMs":5,"loginDelayMs":7,"reachoutTimelock":{"until":1770000000,"type":"RATE_LIMIT"}}"#,
        )
        .unwrap();
        assert_eq!(faults.len(), 18);
        for fault in faults {
            let again = FaultSpec::from(&fault).into_faults().unwrap();
            assert_eq!(again, [fault]);
        }
    }

    #[test]
    fn senseless_bodies_are_refused() {
        assert_eq!(parse("{}"), Err(FaultSpecError::Empty));
        assert_eq!(parse(r#"{"dropAcks":false}"#), Err(FaultSpecError::NotTrue("dropAcks")));
        assert_eq!(parse(r#"{"nack":1}"#), Err(FaultSpecError::Range));
        assert_eq!(parse(r#"{"streamConflict":"x"}"#), Err(FaultSpecError::Code));
        assert_eq!(parse(r#"{"dropAcks":true,"times":0}"#), Err(FaultSpecError::NoTimes));
        assert_eq!(parse(r#"{"unreadable":false}"#), Err(FaultSpecError::NotTrue("unreadable")));
        assert_eq!(parse(r#"{"dropMessages":false}"#), Err(FaultSpecError::NotTrue("dropMessages")));
        let timelock = r#"{"reachoutTimelock":{"until":1,"type":"no such type"}}"#;
        assert_eq!(parse(timelock), Err(FaultSpecError::TimelockType));
        for body in [r#"{"dropAck":true}"#, r#"{"reachoutTimelock":{}}"#, r#"{"reachoutTimelock":{"until":-1}}"#] {
            assert!(serde_json::from_str::<FaultSpec>(body).is_err(), "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(body in ".*") {
            if let Ok(spec) = serde_json::from_str::<FaultSpec>(&body) {
                let _ = spec.into_faults();
            }
        }

        #[test]
        fn any_numbers_are_read_or_refused(a: u64, b: u16, c in "[0-9a-z]{0,8}") {
            let body = serde_json::json!({"latencyMs": a, "closeAfterMs": a, "nack": b, "streamError": c, "phone": c});
            if let Ok(spec) = serde_json::from_value::<FaultSpec>(body) {
                let _ = spec.into_faults();
            }
        }

        #[test]
        fn any_timelock_reads_back_or_is_refused(until: u64, kind: Option<String>, named in "[A-Z0-9_]{0,70}") {
            for kind in [kind, Some(named)] {
                let body = serde_json::json!({"reachoutTimelock": {"until": until, "type": kind}});
                if let Ok(faults) = serde_json::from_value::<FaultSpec>(body).unwrap().into_faults() {
                    let again = FaultSpec::from(&faults[0]).into_faults().unwrap();
                    prop_assert_eq!(again, faults);
                }
            }
        }
    }
}
