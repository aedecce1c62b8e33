//! What this server is to a client: requests of one principal enter, results leave.

use std::future::Future;

use ::http::request::Parts;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ErrorCode, Implementation,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, ServerCapabilities, ServerConfig,
    Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::{ErrorData, ServerHandler};
use tokio_util::sync::CancellationToken;

use super::tools::{Asker, Kind};
use super::{Descriptions, names, resources};
use crate::query::Principal;
use crate::serve::{Door, trace};
use crate::telemetry::Traceparent;

/// Answers the requests of one principal.
#[derive(Clone)]
pub(super) struct Server<D> {
    pub door: D,
    pub principal: Principal,
    pub descriptions: Descriptions,
}

/// Among the extensions of an HTTP request: cancelled when its client takes no answer any more.
#[derive(Clone)]
pub(super) struct Gone(pub CancellationToken);

impl<D: Door> Server<D> {
    fn asker(&self, context: &RequestContext<RoleServer>) -> Asker<'_, D> {
        let Self { door, principal, descriptions } = self;
        Asker { door, principal, descriptions, caller: caller(context) }
    }

    fn instructions(&self) -> String {
        format!(
            "sidewing answers SQL over the tables of upstream databases, some of which it keeps here. The dialect is \
             Apache DataFusion's, close to PostgreSQL's; everything is read-only. Call list_datasets to see the tables, \
             table_schema for their columns and sample_data for some rows before you write SQL for the tool `sql`; let \
             SQL filter and aggregate, since at most 1000 rows are returned. If a table is not ready, get_readiness says \
             why. There is {}.",
            names::told(&self.door.datasets())
        )
    }
}

/// The work, unless the client cancels the request or goes away; then what is left of it is dropped, and its query ends,
/// upstream included.
async fn unless_cancelled<T>(
    context: &RequestContext<RoleServer>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let parts = context.extensions.get::<Parts>();
    let gone = parts.and_then(|parts| parts.extensions.get::<Gone>().cloned());
    let gone = gone.map_or_else(CancellationToken::new, |Gone(token)| token);
    gone.run_until_cancelled(context.ct.run_until_cancelled(work)).await.flatten()
}

/// The span of who asks: of the message, or else of the HTTP request that it came in.
fn caller(context: &RequestContext<RoleServer>) -> Option<Traceparent> {
    match context.meta.get_traceparent() {
        Some(parent) => trace::read(Some(parent), context.meta.get_tracestate()),
        None => trace::of_headers(&context.extensions.get::<Parts>()?.headers),
    }
}

/// All lists have one page.
fn first_page(request: Option<&PaginatedRequestParams>) -> Result<(), ErrorData> {
    match request.is_some_and(|request| request.cursor.is_some()) {
        true => Err(ErrorData::invalid_params("there is no such page: every list has one page", None)),
        false => Ok(()),
    }
}

impl<D: Door> ServerHandler for Server<D> {
    /// Neither tools nor resources change while the process runs: the spicepod names them.
    fn get_info(&self) -> ServerConfig {
        let about = Implementation::new("sidewing", env!("CARGO_PKG_VERSION"))
            .with_title("sidewing")
            .with_description(env!("CARGO_PKG_DESCRIPTION"));
        let capabilities = ServerCapabilities::builder().enable_tools().enable_resources().build();
        ServerConfig::new(capabilities).with_server_info(about).with_instructions(self.instructions())
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        first_page(request.as_ref())?;
        Ok(ListToolsResult::with_all_items(Kind::ALL.into_iter().map(Kind::tool).collect()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        Kind::of(name).map(Kind::tool)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(kind) = Kind::of(&request.name) else {
            let known = Kind::ALL.map(Kind::name).join(", ");
            let message = format!("there is no tool `{}`; there is {known}", request.name);
            return Err(ErrorData::new(ErrorCode::INVALID_PARAMS, message, None));
        };
        let asker = self.asker(&context);
        let call = asker.call(kind, request.arguments.unwrap_or_default());
        let called = unless_cancelled(&context, call).await;
        // Nobody reads it: what is cancelled gets no answer.
        Ok(called.unwrap_or_else(|| CallToolResult::error(Vec::new())).into())
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        first_page(request.as_ref())?;
        Ok(ListResourcesResult::with_all_items(resources::list(&self.asker(&context))))
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        first_page(request.as_ref())?;
        Ok(ListResourceTemplatesResult::with_all_items(vec![resources::template()]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let asker = self.asker(&context);
        let read = unless_cancelled(&context, resources::read(&asker, &request.uri)).await;
        // As above.
        read.unwrap_or_else(|| Ok(ReadResourceResult::new(Vec::new()))).map(Into::into)
    }
}
