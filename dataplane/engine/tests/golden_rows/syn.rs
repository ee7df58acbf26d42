//! SYNs, packets of known flows, packets of unknown flows, and what the backend's state changes.

use ipc::counter::Counter as C;
use ipc::message::{BackendState, Command};
use ipc::reason::Reason;
use packet::{Capable, CapableFlags, Flags, Version};

use super::{
    ISN, KEY, Row, Scene, Step, TOKEN, capable, connection, dss, port, remove, row, seen_connection, segment,
    set_state, syn, third,
};
use crate::support::{CLIENT_KEY, backend_in, name, of};

/// A SYN's retransmission, another SYN, and when a 5-tuple is free again.
pub fn rows(s: &Scene) -> Vec<Row> {
    let mut rows = opening(s);
    rows.extend(again(s));
    rows.extend(known(s));
    rows.extend(states(s));
    rows
}

fn opening(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b2", port::WEB);
    let any = s.flow_to_any("o1", 12_345);
    let version = |nibble| syn(&flow).option(&[0x1e, 4, nibble, 0x01]);
    let invalid = Capable::Syn { version: Version::V1, flags: CapableFlags(0x41), sender: None };
    vec![
        row("a plain SYN is hashed", syn(&flow)).forward(Reason::Hash, "web", "b2").moves(&[C::FlowInserted]),
        row("a v1 MP_CAPABLE SYN is hashed as a plain one is", capable(&flow))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::FlowInserted, C::CapableSyn]),
        row("a v0 MP_CAPABLE SYN is hashed as well", syn(&flow).mp_capable_syn_v0(CLIENT_KEY))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::FlowInserted, C::CapableSyn]),
        row("a SYN of a future MPTCP version counts as v1", version(0x02))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::FlowInserted, C::CapableSyn]),
        row("an MP_CAPABLE SYN with the B flag is plain TCP", syn(&flow).mp_capable(&invalid))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::FlowInserted, C::MptcpBadFlags]),
        row("an MP_CAPABLE SYN of a wrong length is plain TCP", syn(&flow).option(&[0x1e, 5, 0x01, 0x01, 0]))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::FlowInserted, C::MptcpBadLength]),
        row("a SYN whose options are cut off is plain TCP", syn(&flow).option(&[0x1e, 1]))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::FlowInserted, C::OptionMalformed]),
        row("an option past the end of the header is cut off", syn(&flow).option(&[0x1e, 12, 0x10, 1]))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::FlowInserted, C::OptionMalformed]),
        row("MP_CAPABLE before a cut option still counts", capable(&flow).option(&[0xfd, 0]))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::FlowInserted, C::CapableSyn, C::OptionMalformed]),
        row("MP_CAPABLE on a VIP without steering only counts", capable(&s.flow("b1", port::PLAIN)))
            .forward(Reason::Hash, "plain", "b1")
            .moves(&[C::FlowInserted, C::CapableSyn]),
        row("a SYN to a VIP on any port", syn(&any))
            .forward(Reason::Hash, "any", "o1")
            .moves(&[C::FlowInserted]),
        row("a SYN when no backend may be chosen", syn(&empty(s))).dropped(Reason::NoBackend).at("empty"),
        row("a SYN with FIN opens nothing", of(&flow).syn(ISN).flags(Flags::SYN.with(Flags::FIN)))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::Adopted, C::FlowInserted]),
        row("a SYN with RST opens nothing", of(&flow).syn(ISN).flags(Flags::SYN.with(Flags::RST)))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::Adopted, C::FlowInserted]),
        row("a SYN/ACK of nobody's connection is adopted", of(&flow).syn_ack(ISN, 1))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::Adopted, C::FlowInserted]),
        row("an ACK of nobody's connection is adopted", segment(&flow, 0))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::Adopted, C::FlowInserted]),
        row("an ACK of nobody's connection when no backend may be chosen", segment(&empty(s), 0))
            .dropped(Reason::NoBackend)
            .at("empty"),
    ]
}

/// A flow to the VIP whose pool chooses nobody.
fn empty(s: &Scene) -> packet::Flow {
    packet::Flow { destination_port: port::EMPTY, ..s.flow("b1", port::WEB) }
}

fn again(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b2", port::WEB);
    let other_isn = || of(&flow).syn(ISN ^ 1);
    let drained = || set_state("b2", 12, BackendState::Draining);
    // Where the flow goes while b2 is draining.
    let elsewhere = {
        let mut world = Scene::world(crate::support::site());
        world.commit(&[backend_in("web-servers", "b2", 12, 100, BackendState::Draining)]);
        if world.name_of(world.hashed(&flow)) == Some("b1") { "b1" } else { "b3" }
    };
    let opened = |steps: Vec<Step>| steps.into_iter().chain([drained()]);
    let fresh = |what, steps, packet| {
        row(what, packet).after(opened(steps)).forward(Reason::Flow, "web", "b2").moves(&[C::SynOnLiveFlow])
    };
    let renewed = |what, steps: Vec<Step>| {
        row(what, other_isn())
            .after(opened(steps))
            .forward(Reason::Hash, "web", elsewhere)
            .moves(&[C::FlowInserted])
    };
    // Opened while b2 was draining, which is back.
    let kept = |what, steps: Vec<Step>| {
        let back = set_state("b2", 12, BackendState::Active);
        row(what, other_isn())
            .after([drained(), syn(&flow).into(), segment(&flow, 0).into(), back])
            .after(steps)
            .forward(Reason::Flow, "web", elsewhere)
            .moves(&[C::FlowInserted])
    };
    let fin = || of(&flow).fin(ISN.wrapping_add(1), 1).into();
    let rst = || of(&flow).rst(ISN.wrapping_add(1), 1).into();
    vec![
        row("a retransmitted SYN goes where the first went", syn(&flow))
            .after(opened(vec![syn(&flow).into()]))
            .forward(Reason::Flow, "web", "b2")
            .moves(&[C::SynRetransmitted]),
        row("a retransmitted MP_CAPABLE SYN goes where the first went", capable(&flow))
            .after(opened(vec![capable(&flow).into()]))
            .forward(Reason::Flow, "web", "b2")
            .moves(&[C::SynRetransmitted, C::CapableSyn]),
        row("the fallback SYN without MP_CAPABLE goes where the first went", syn(&flow))
            .after(opened(vec![capable(&flow).into()]))
            .forward(Reason::Flow, "web", "b2")
            .moves(&[C::SynRetransmitted]),
        row("a SYN retransmitted after the key was learned", capable(&flow))
            .after(opened(connection(&flow, KEY)))
            .forward(Reason::Flow, "web", "b2")
            .moves(&[C::SynRetransmitted, C::CapableSyn]),
        fresh(
            "another SYN on a half-open flow is the server's to judge",
            vec![syn(&flow).into()],
            of(&flow).syn(ISN ^ 0x0001_0000),
        ),
        fresh(
            "another SYN on an established flow is the server's to judge",
            vec![syn(&flow).into(), segment(&flow, 0).into()],
            other_isn(),
        ),
        fresh(
            "another SYN on a connection is the server's to judge",
            seen_connection(&flow, KEY),
            of(&flow).syn(ISN ^ 1),
        ),
        renewed(
            "another SYN on a closing flow is new",
            vec![syn(&flow).into(), segment(&flow, 0).into(), fin()],
        ),
        renewed("another SYN on a reset flow is new", vec![syn(&flow).into(), rst()]),
        renewed(
            "another SYN on a closing connection is new",
            connection(&flow, KEY).into_iter().chain([fin()]).collect(),
        ),
        renewed(
            "another SYN on a flow idle for more than a minute is new",
            vec![syn(&flow).into(), segment(&flow, 0).into(), Step::Wait(80)],
        ),
        kept("another SYN on a closing flow goes to its backend if that takes new ones", vec![rst()]),
        kept("another SYN on a flow idle for more than a minute does, too", vec![Step::Wait(80)]),
        renewed("another SYN on an adopted flow is new", vec![segment(&flow, 0).into()]),
        row("even the same ISN is new on an adopted flow", syn(&flow))
            .after(opened(vec![segment(&flow, 0).into()]))
            .forward(Reason::Hash, "web", elsewhere)
            .moves(&[C::FlowInserted]),
        row("a SYN on a flow whose backend is gone is new", syn(&flow))
            .after([syn(&flow).into(), remove("b2"), Step::Delete])
            .forward(Reason::Hash, "web", elsewhere)
            .moves(&[C::FlowInserted]),
        row("an expired half-open flow is forgotten", segment(&flow, 0))
            .after([syn(&flow).into(), drained(), Step::Wait(120)])
            .forward(Reason::Hash, "web", elsewhere)
            .moves(&[C::Adopted, C::FlowInserted]),
        row("a SYN retransmitted for a minute keeps its flow half-open", segment(&flow, 0))
            .after([
                syn(&flow).into(),
                drained(),
                Step::Wait(15),
                syn(&flow).into(),
                Step::Wait(48),
                syn(&flow).into(),
                Step::Wait(17),
            ])
            .forward(Reason::Flow, "web", "b2"),
        row("a SYN that comes again after its pool changed tells that the flow moved", syn(&flow))
            .after([syn(&flow).into(), drained(), Step::Wait(16)])
            .forward(Reason::Flow, "web", "b2")
            .moves(&[C::SynRetransmitted, C::FlowMoved]),
    ]
}

fn known(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b2", port::WEB);
    let drained = || set_state("b2", 12, BackendState::Draining);
    let flow_row = |what, steps, packet| {
        let (steps, packet): (Vec<Step>, packet::build::PacketBuilder) = (steps, packet);
        row(what, packet).after(steps).forward(Reason::Flow, "web", "b2")
    };
    let established = || vec![syn(&flow).into(), segment(&flow, 0).into()];
    vec![
        flow_row("the third packet of a plain handshake", vec![syn(&flow).into()], segment(&flow, 0)),
        flow_row("data of an established flow", established(), segment(&flow, 0).payload(b"hello")),
        flow_row("the FIN of a plain flow", established(), of(&flow).fin(ISN.wrapping_add(1), 1)),
        flow_row("the RST of a plain flow", established(), of(&flow).rst(ISN.wrapping_add(1), 1)),
        flow_row("a RST on a half-open flow", vec![syn(&flow).into()], of(&flow).rst(ISN, 1)),
        flow_row(
            "an ACK after the FIN",
            established().into_iter().chain([of(&flow).fin(ISN.wrapping_add(1), 1).into()]).collect(),
            segment(&flow, 1),
        ),
        row("the first packet in a later tick of a flow whose backend drains", segment(&flow, 0))
            .after(established().into_iter().chain([drained(), Step::Wait(40)]).collect::<Vec<_>>())
            .forward(Reason::Flow, "web", "b2")
            .moves(&[C::FlowMoved]),
        flow_row(
            "the second one",
            established()
                .into_iter()
                .chain([drained(), Step::Wait(40), segment(&flow, 0).into(), Step::Wait(40)])
                .collect(),
            segment(&flow, 0),
        ),
        flow_row("a SYN/ACK on a known flow", established(), of(&flow).syn_ack(ISN, 1)),
        flow_row("an adopted flow", vec![segment(&flow, 0).into()], segment(&flow, 9).payload(b"more")),
        flow_row("DSS data of a learned connection", connection(&flow, KEY), dss(&flow)),
        flow_row(
            "options of an established flow are not walked",
            established(),
            segment(&flow, 0).option(&[0x1e, 0]),
        ),
        flow_row("a malformed option on a FIN is counted", established(), {
            of(&flow).fin(ISN.wrapping_add(1), 1).option(&[0x1e, 0])
        })
        .moves(&[C::OptionMalformed]),
        row("UDP is hashed and remembered", udp(s))
            .forward(Reason::Hash, "dns", "b3")
            .moves(&[C::FlowInserted]),
        row("UDP of a known flow", udp(s))
            .after([udp(s).into(), set_state("b3", 13, BackendState::Draining)])
            .forward(Reason::Flow, "dns", "b3"),
        row("UDP of a flow that was silent for less than its idle time", udp(s))
            .after([udp(s).into()])
            .after(nobody_to_choose())
            .after([Step::Wait(100)])
            .forward(Reason::Flow, "dns", "b3")
            .moves(&[C::FlowMoved]),
        row("UDP of a flow that was silent for longer", udp(s))
            .after([udp(s).into()])
            .after(nobody_to_choose())
            .after([Step::Wait(200)])
            .dropped(Reason::NoBackend)
            .at("dns"),
        row("UDP keeps its flow by coming again", udp(s))
            .after([udp(s).into()])
            .after(nobody_to_choose())
            .after([Step::Wait(100), udp(s).into(), Step::Wait(100)])
            .forward(Reason::Flow, "dns", "b3"),
        row("UDP under two VLAN tags", udp(s).qinq(7, 8))
            .forward(Reason::Hash, "dns", "b3")
            .moves(&[C::FlowInserted]),
    ]
}

/// All of the pool's backends drain.
fn nobody_to_choose() -> [Step; 3] {
    [("b1", 11), ("b2", 12), ("b3", 13)].map(|(text, number)| set_state(text, number, BackendState::Draining))
}

/// A datagram to the UDP VIP that Maglev gives to b3.
fn udp(s: &Scene) -> packet::build::PacketBuilder {
    let dns = |source_port| packet::Flow {
        protocol: 17,
        destination_port: port::DNS,
        source_port,
        ..s.flow("b1", port::WEB)
    };
    let flow = (1..).map(dns).find(|flow| s.world.name_of(s.world.hashed(flow)) == Some("b3")).unwrap();
    of(&flow).payload(b"query")
}

fn states(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b2", port::WEB);
    let established = || vec![syn(&flow).into(), segment(&flow, 0).into()];
    let keeps = |what, change: Step| {
        row(what, segment(&flow, 0).payload(b"x")).after(established()).after([change]).forward(
            Reason::Flow,
            "web",
            "b2",
        )
    };
    let no_mac = |pool: &str, text: &str| {
        let Command::PutBackend { pool, name, address4, address6, weight, state, handles, .. } =
            backend_in(pool, text, 12, 100, BackendState::Active)
        else {
            unreachable!()
        };
        Command::PutBackend { pool, name, address4, address6, mac: None, weight, state, handles }
    };
    let not_chosen = |what, change: Vec<Command>| {
        let mut world = Scene::world(crate::support::site());
        world.commit(&change);
        let elsewhere = if world.name_of(world.hashed(&flow)) == Some("b1") { "b1" } else { "b3" };
        row(what, syn(&flow))
            .after([Step::Commit(change)])
            .forward(Reason::Hash, "web", elsewhere)
            .moves(&[C::FlowInserted])
    };
    let state = |state| vec![backend_in("web-servers", "b2", 12, 100, state)];
    vec![
        keeps("a draining backend keeps its flows", Step::Commit(state(BackendState::Draining))),
        keeps("a backend that is down keeps its flows", Step::Commit(state(BackendState::Down))),
        keeps("a removed backend keeps its flows", remove("b2")),
        keeps(
            "a backend of weight 0 keeps its flows",
            Step::Commit(vec![backend_in("web-servers", "b2", 12, 0, BackendState::Active)]),
        ),
        keeps(
            "a backend that was removed and came back keeps its flows",
            Step::Commit(vec![
                Command::RemoveBackend { pool: name("web-servers"), name: name("b2"), deadline: None },
                backend_in("web-servers", "b2", 12, 100, BackendState::Active),
            ]),
        ),
        not_chosen("a draining backend gets nothing new", state(BackendState::Draining)),
        not_chosen("a backend that is down gets nothing new", state(BackendState::Down)),
        not_chosen(
            "a removed backend gets nothing new",
            vec![Command::RemoveBackend { pool: name("web-servers"), name: name("b2"), deadline: None }],
        ),
        not_chosen(
            "a backend of weight 0 gets nothing new",
            vec![backend_in("web-servers", "b2", 12, 0, BackendState::Active)],
        ),
        not_chosen("a backend without a MAC address gets nothing new", vec![no_mac("web-servers", "b2")]),
        row("a flow whose backend lost its MAC address", segment(&flow, 0))
            .after(established())
            .after([Step::Commit(vec![no_mac("web-servers", "b2")])])
            .dropped(Reason::NoNeighbour)
            .at("web"),
        row("a removed backend that nobody holds is forgotten, its flows with it", third(&flow, KEY))
            .after(connection(&flow, KEY))
            .after([of(&flow).rst(ISN, 1).into(), remove("b2"), Step::Wait(300), Step::Forget])
            .forward(Reason::Hash, "web", if s.without("b2", &flow) == "b1" { "b1" } else { "b3" })
            .moves(&[C::Adopted, C::FlowInserted]),
        row("a key on a flow that was closed is not learned", third(&flow, KEY))
            .after([capable(&flow).into(), of(&flow).rst(ISN.wrapping_add(1), 1).into()])
            .forward(Reason::Flow, "web", "b2"),
        row("another SYN on a live flow teaches nothing", {
            of(&flow).data(700_001, 1).mp_capable_ack(Version::V1, CLIENT_KEY, KEY)
        })
        .after([capable(&flow).into(), of(&flow).syn(700_000).mp_capable_syn_v1().into()])
        .forward(Reason::Flow, "web", "b2")
        .token(TOKEN)
        .moves(&[C::KeyRefused]),
    ]
}

impl Scene {
    /// Where Maglev sends a flow once this backend is not chosen any more.
    fn without(&self, text: &str, flow: &packet::Flow) -> String {
        let mut world = Scene::world(crate::support::site());
        world.commit(&[Command::RemoveBackend {
            pool: name("web-servers"),
            name: name(text),
            deadline: None,
        }]);
        world.name_of(world.hashed(flow)).unwrap().to_owned()
    }
}
