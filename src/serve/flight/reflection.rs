//! Server reflection: the descriptors of `/proto` and of gRPC's health service, for clients without them (grpcurl).

use axum::body::Body;
use axum::middleware::Next;
use axum::response::Response;
use tonic::service::RoutesBuilder;
use tonic_reflection::server::{Builder, Error};

use crate::proto;
use crate::serve::listen::Endless;

/// Beside Flight's own.
pub(super) const SERVICES: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// What paths of reflection begin with.
const PATHS: &str = "/grpc.reflection.";

fn builder<'a>() -> Builder<'a> {
    Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Adds both versions that clients speak.
///
/// # Errors
/// Descriptors that do not hang together.
pub(super) fn add(routes: &mut RoutesBuilder) -> Result<(), Error> {
    routes.add_service(builder().build_v1()?);
    routes.add_service(builder().build_v1alpha()?);
    Ok(())
}

/// A client may hold its call for as long as it wants to ask: a drain does not wait for that.
pub(super) async fn without_end(request: ::http::Request<Body>, next: Next) -> Response {
    let is_reflection = request.uri().path().starts_with(PATHS);
    let mut response = next.run(request).await;
    if is_reflection {
        response.extensions_mut().insert(Endless);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_hang_together() {
        add(&mut RoutesBuilder::default()).unwrap();
    }
}
