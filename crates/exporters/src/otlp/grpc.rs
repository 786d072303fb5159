//! OTLP over gRPC: the unary call `MetricsService/Export`.
//!
//! Source of the rules: the OTLP specification, "OTLP/gRPC": which codes are repeated, and that
//! RESOURCE_EXHAUSTED is repeated only when the receiver says after which time (`RetryInfo`).

use std::error::Error as _;
use std::time::Duration;

use http::uri::PathAndQuery;
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

use super::PushConfig;
use crate::attempt::{Again, Failure, first_words};
use crate::http::{HttpOptions, USER_AGENT};
use crate::tls::{Renewed, TlsPem};

const EXPORT: PathAndQuery = PathAndQuery::from_static("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export");

pub(super) struct Grpc {
    channel: Renewed<Channel>,
    gzip: bool,
    headers: http::HeaderMap,
    options: HttpOptions,
}

impl Grpc {
    pub(super) fn new(config: &PushConfig) -> Result<Grpc, String> {
        let url = config.endpoint.clone();
        let any_certificate = config.http.insecure_skip_verify;
        let channel = Renewed::new(config.http.tls_sources(), move |pem| channel(&url, pem, any_certificate))?;
        let headers = config.http.header_map()?;
        Ok(Grpc { channel, gzip: config.gzip, headers, options: config.http.clone() })
    }

    pub(super) async fn send(&self, request: &ExportMetricsServiceRequest) -> Result<ExportMetricsServiceResponse, Failure> {
        let mut client = tonic::client::Grpc::new(self.channel.get());
        if self.gzip {
            client = client.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
        }
        let away = |error: tonic::transport::Error| Failure::passing(format!("no connection: {}", crate::attempt::with_causes(&error)));
        client.ready().await.map_err(away)?;
        let codec = ProstCodec::<ExportMetricsServiceRequest, ExportMetricsServiceResponse>::default();
        let mut headers = self.headers.clone();
        if let Some(authorization) = self.options.authorization().await? {
            headers.insert(http::header::AUTHORIZATION, authorization);
        }
        let request = Request::from_parts(MetadataMap::from_headers(headers), Default::default(), request.clone());
        let answer = client.unary(request, EXPORT, codec).await;
        answer.map(tonic::Response::into_inner).map_err(|status| Failure { why: reason(&status), again: again(&status) })
    }
}

/// Connects when it is used.
fn channel(url: &str, pem: &TlsPem, any_certificate: bool) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| format!("is no URL ({error})"))?;
    let endpoint = match endpoint.uri().scheme_str() {
        Some("http") => endpoint,
        Some("https") if any_certificate => {
            return Err("cannot skip the check of certificates over gRPC: name the receiver's in ca-file".to_owned());
        }
        Some("https") => endpoint.tls_config(tls(pem)).map_err(|error| crate::attempt::with_causes(&error))?,
        _ => return Err("is not http or https".to_owned()),
    };
    let endpoint = endpoint.user_agent(USER_AGENT).map_err(|error| error.to_string())?.connect_timeout(Duration::from_secs(5));
    Ok(endpoint.connect_lazy())
}

fn tls(pem: &TlsPem) -> ClientTlsConfig {
    let config = match &pem.ca {
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    match &pem.identity {
        Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
        None => config,
    }
}

fn again(status: &Status) -> Again {
    let info = status.get_details_retry_info();
    let asked = info.as_ref().and_then(|info| info.retry_delay);
    match status.code() {
        Code::Cancelled | Code::DeadlineExceeded | Code::Aborted | Code::OutOfRange | Code::Unavailable | Code::DataLoss => {
            Again::After(asked)
        }
        Code::ResourceExhausted if info.is_some() => Again::After(asked),
        // No answer of the receiver but a connection that broke.
        Code::Unknown if status.source().is_some() => Again::After(None),
        _ => Again::Never,
    }
}

fn reason(status: &Status) -> String {
    let cause = status.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{:?}: {}{cause}", status.code(), first_words(status.message()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    /// The table of the OTLP specification, "Failures" of OTLP/gRPC.
    #[test]
    fn the_codes_of_the_otlp_specification_are_repeated_and_no_others() {
        let repeated = [Code::Cancelled, Code::DeadlineExceeded, Code::Aborted, Code::OutOfRange, Code::Unavailable, Code::DataLoss];
        for code in (0..17).map(Code::from_i32) {
            let wanted = if repeated.contains(&code) { Again::After(None) } else { Again::Never };
            assert_eq!(again(&Status::new(code, "x")), wanted, "{code:?}");
        }
        let asked = Some(Duration::from_secs(5));
        let full = Status::with_error_details(Code::ResourceExhausted, "x", ErrorDetails::with_retry_info(asked));
        assert_eq!(again(&full), Again::After(asked));
        let wrong = Status::with_error_details(Code::InvalidArgument, "x", ErrorDetails::with_retry_info(asked));
        assert_eq!(again(&wrong), Again::Never);
    }
}
