//! Load from many machines.
//!
//! An **agent** is this program on another machine, waiting for a controller. The controller, which is `run --agents`, hands each agent the
//! same order with its place among the workers; the agents together keep one schedule, number their documents without a gap, and begin at one
//! moment, since the controller has compared their clocks with its own. What they count comes back and is added: HDR histograms bucket by
//! bucket, time series slice by slice, so that a report of many agents is what one machine of their strength would have written.
//!
//! Both sides prove who they are by certificates of an authority made for them alone (`keys`); without them nobody is listened to. What
//! travels (`wire`): the order, with the branches' private keys, which an agent holds in memory for the run and writes nowhere.
//!
//! `fleet` is the controller's side, `agent` the agent's, `clock` the comparison. An agent ends by itself: when its controller has gone, or when
//! none came.

mod agent;
mod clock;
mod fleet;
mod keys;
mod wire;

pub use self::{
    agent::{Agent, AgentError, serve},
    clock::Clock,
    fleet::{Fleet, FleetError},
    keys::{KeyError, make},
};
pub(crate) use self::{fleet::AgentState, fleet::Seat};

/// Where an agent listens, where nothing else is said.
pub const DEFAULT_PORT: u16 = 7470;
