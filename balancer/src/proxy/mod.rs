//! What happens to a request, from the parsed head to the end of the answer.
//!
//!   observe (count) -> screen (refuse) -> forward (pool, connection, retry)
//!
//! Each step is a tower layer. Which pool a request is for is the plan's to say
//! (see [`crate::route`]).
//! Everything runs on the worker that accepted the client's connection.

mod affinity;
mod body;
mod connect;
mod forward;
mod gate;
mod headers;
mod hedge;
mod idle;
mod observe;
mod reply;
mod retry;
mod screen;
mod shared;
mod upgrade;
mod upstream;

use std::convert::Infallible;
use std::rc::Rc;

use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use tower::{Service, ServiceBuilder};

pub(crate) use idle::IdleConnections;
use observe::{ObserveLayer, ObservedBody};
pub(crate) use retry::{Replay, RetryBudget};
use screen::ScreenLayer;

use crate::server::{Session, Worker};

/// What serves the requests of one client connection.
pub(crate) trait Door:
    Service<Request<Incoming>, Response = Response<ObservedBody>, Error = Infallible> + Clone + 'static
{
}

impl<S> Door for S where
    S: Service<Request<Incoming>, Response = Response<ObservedBody>, Error = Infallible> + Clone + 'static
{
}

/// The steps for one client connection.
pub(crate) fn door(worker: Rc<Worker>, session: Rc<Session>) -> impl Door {
    let observe = ObserveLayer { worker: Rc::clone(&worker), session: Rc::clone(&session) };
    let forward = tower::service_fn(move |request| {
        // Boxed: this future is large, and each layer around it would move it.
        Box::pin(forward::forward(Rc::clone(&worker), Rc::clone(&session), request)).map(Ok)
    });
    ServiceBuilder::new().layer(observe).layer(ScreenLayer).service(forward)
}
