//! ApiVersions v0-4: what this broker serves, from the router's table.
//!
//! - A version that is not served is answered in version 0 with UNSUPPORTED_VERSION and the range
//!   of ApiVersions itself, so that the client can ask again.
//! - Features: `group.version` is supported at level 0 only, which tells clients that there are no KIP-848
//!   groups. `transaction.version` is finalized at level 2, without which Java clients do not use
//!   transactions as KIP-890 has them. Versions up to 3 can't express a range that begins at 0 and leave
//!   such out.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::router::{self, Api, Reply, RequestContext};

/// The versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=4;

/// The features whose levels clients ask for, and the levels served.
const FEATURES: &[(&str, i16, i16)] = &[
    ("group.version", 0, 0),
    (TRANSACTION_VERSION, 0, TRANSACTION_VERSION_LEVEL),
];

const TRANSACTION_VERSION: &str = "transaction.version";
/// Finalized: the level that clients go by.
const TRANSACTION_VERSION_LEVEL: i16 = 2;

/// Answers with the table.
pub async fn handle(
    context: &RequestContext,
    request: ApiVersionsRequest,
) -> Reply<ApiVersionsResponse> {
    let version = context.api_version;
    if version >= 3
        && !(is_software_id(&request.client_software_name)
            && is_software_id(&request.client_software_version))
    {
        return Reply::Now(
            ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code()),
        );
    }
    let supported = FEATURES
        .iter()
        .filter(|(_, min, _)| version >= 4 || *min > 0);
    let supported = supported.map(|(name, min, max)| {
        SupportedFeatureKey::default()
            .with_name(StrBytes::from_static_str(name))
            .with_min_version(*min)
            .with_max_version(*max)
    });
    Reply::Now(
        ApiVersionsResponse::default()
            .with_api_keys(router::table().iter().map(entry).collect())
            .with_supported_features(supported.collect())
            .with_finalized_features_epoch(0)
            .with_finalized_features(vec![
                FinalizedFeatureKey::default()
                    .with_name(StrBytes::from_static_str(TRANSACTION_VERSION))
                    .with_min_version_level(TRANSACTION_VERSION_LEVEL)
                    .with_max_version_level(TRANSACTION_VERSION_LEVEL),
            ]),
    )
}

/// The answer to a version that is not served.
pub fn unsupported_version() -> ApiVersionsResponse {
    let own = router::table()
        .iter()
        .filter(|api| api.key == ApiKey::ApiVersions);
    ApiVersionsResponse::default()
        .with_error_code(ResponseError::UnsupportedVersion.code())
        .with_api_keys(own.map(entry).collect())
}

fn entry(api: &Api) -> ApiVersion {
    let versions = api.advertised();
    ApiVersion::default()
        .with_api_key(api.key as i16)
        .with_min_version(*versions.start())
        .with_max_version(*versions.end())
}

/// Letters, digits, `-` and `.`, the first and the last a letter or a digit (KIP-511).
fn is_software_id(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_ids() {
        for good in [
            "librdkafka",
            "apache-kafka-java",
            "4.1.0",
            "2.12.1-RC1",
            "x",
        ] {
            assert!(is_software_id(good), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "a_b", "č"] {
            assert!(!is_software_id(bad), "{bad}");
        }
    }
}
