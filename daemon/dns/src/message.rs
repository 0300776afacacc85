//! DNS messages: what is asked, and answers to it. Pure; queries come from containers and are hostile.

use std::net::IpAddr;

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::message_builder::AnswerBuilder;
use domain::base::{Message, MessageBuilder, Name, ParsedName, Question, StaticCompressor, Ttl};
use domain::rdata::{A, Aaaa, Ptr};

/// How long others may remember an address: a container that is made anew has another one.
const TTL: Ttl = Ttl::from_secs(5);
/// What a client without EDNS can take over UDP (RFC 1035 4.2.1).
const PLAIN_UDP: usize = 512;
/// What we say that we can take.
const OUR_UDP: u16 = 4096;
const HEADER: usize = 12;

/// A query that makes sense.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    message: &'a Message<[u8]>,
    question: Question<ParsedName<&'a [u8]>>,
    /// The name asked for: lower case, no final dot; empty for the root.
    pub(crate) name: String,
    pub(crate) rtype: Rtype,
    /// How many bytes of answer the client takes over UDP.
    pub(crate) udp_limit: usize,
    edns: bool,
}

/// What a packet is.
#[derive(Debug)]
pub(crate) enum Asked<'a> {
    Query(Query<'a>),
    /// It cannot be served; this is the answer.
    Refused(Vec<u8>),
    /// Not even an answer is possible.
    Nonsense,
}

/// Reads a packet from a client.
pub(crate) fn parse(packet: &[u8]) -> Asked<'_> {
    let Ok(message) = Message::from_slice(packet) else { return Asked::Nonsense };
    if message.header().qr() {
        return Asked::Nonsense;
    }
    let refuse = |rcode| Asked::Refused(MessageBuilder::new_vec().start_error(message, rcode).finish());
    if message.header().opcode() != Opcode::QUERY {
        return refuse(Rcode::NOTIMP);
    }
    let Ok(question) = message.sole_question() else { return refuse(Rcode::FORMERR) };
    if question.qclass() != Class::IN {
        return refuse(Rcode::REFUSED);
    }
    let opt = message.opt();
    let udp_limit = opt.as_ref().map_or(PLAIN_UDP, |opt| usize::from(opt.udp_payload_size()).max(PLAIN_UDP));
    let name = question.qname().to_string().trim_end_matches('.').to_ascii_lowercase();
    let rtype = question.qtype();
    Asked::Query(Query { message, name, rtype, udp_limit, edns: opt.is_some(), question })
}

impl Query<'_> {
    /// What answers to this question have in common: name, type, and what shapes the answer.
    pub(crate) fn cache_key(&self) -> (String, u16, u8) {
        let header = self.message.header();
        let dnssec = self.message.opt().is_some_and(|opt| opt.dnssec_ok());
        let shape = [header.rd(), header.cd(), header.ad(), self.edns, dnssec];
        (self.name.clone(), self.rtype.to_int(), shape.iter().fold(0, |bits, bit| bits << 1 | u8::from(*bit)))
    }

    /// The bytes of the question section, which end where an answer's question ends as well.
    fn question_bytes(&self) -> &[u8] {
        let packet = self.message.as_slice();
        skip_name(packet, HEADER).and_then(|end| packet.get(HEADER..end + 4)).unwrap_or_default()
    }

    pub(crate) fn id(&self) -> u16 {
        self.message.header().id()
    }

    /// Addresses of the type asked for; none at all is an answer as well: the name exists.
    pub(crate) fn addresses(&self, addresses: &[IpAddr]) -> Vec<u8> {
        self.respond(Rcode::NOERROR, |answer| {
            for address in addresses {
                let name = self.question.qname();
                let wanted = |rtype| self.rtype == rtype || self.rtype == Rtype::ANY;
                let pushed = match address {
                    IpAddr::V4(ip) if wanted(Rtype::A) => answer.push((name, TTL, A::new(*ip))),
                    IpAddr::V6(ip) if wanted(Rtype::AAAA) => answer.push((name, TTL, Aaaa::new(*ip))),
                    _ => Ok(()),
                };
                if pushed.is_err() {
                    // 64 KiB are full: thousands of containers under one name.
                    break;
                }
            }
        })
    }

    /// The name of an address.
    pub(crate) fn pointer(&self, target: &str) -> Vec<u8> {
        match Name::<Vec<u8>>::vec_from_str(target) {
            Ok(target) => self.respond(Rcode::NOERROR, |answer| {
                // One record in an empty message fits.
                answer.push((self.question.qname(), TTL, Ptr::new(target))).ok();
            }),
            // A container's name that is no domain name has no reverse.
            Err(_) => self.nothing(),
        }
    }

    /// No such name.
    pub(crate) fn nothing(&self) -> Vec<u8> {
        self.respond(Rcode::NXDOMAIN, |_| {})
    }

    /// Nobody could tell.
    pub(crate) fn failure(&self) -> Vec<u8> {
        self.respond(Rcode::SERVFAIL, |_| {})
    }

    fn respond(&self, rcode: Rcode, fill: impl FnOnce(&mut Answers)) -> Vec<u8> {
        let target = StaticCompressor::new(Vec::with_capacity(PLAIN_UDP));
        // The only error is that the target is too short, which a vector is not.
        let builder = MessageBuilder::from_target(target).expect("a vector takes a header");
        let mut answer = builder.start_error(self.message, rcode);
        answer.header_mut().set_ra(true);
        fill(&mut answer);
        let mut additional = answer.additional();
        if self.edns {
            let sized = additional.opt(|opt| {
                opt.set_udp_payload_size(OUR_UDP);
                Ok(())
            });
            // Full with addresses: the client gets them without our size.
            sized.ok();
        }
        additional.finish().into_target()
    }

    /// The answer as this client can take it over UDP: too long a one becomes a hint to come back over TCP.
    pub(crate) fn fit_udp(&self, answer: Vec<u8>) -> Vec<u8> {
        if answer.len() <= self.udp_limit {
            return answer;
        }
        let mut short = self.respond(Rcode::NOERROR, |_| {});
        if let Some(flags) = short.get_mut(2) {
            *flags |= TRUNCATED;
        }
        short
    }

    /// An answer to the same question, made this query's own: its id, and its spelling of the name.
    pub(crate) fn adopt(&self, answer: &mut [u8]) {
        let question = self.question_bytes();
        if let Some(id) = answer.get_mut(..2) {
            id.copy_from_slice(&self.id().to_be_bytes());
        }
        if let Some(theirs) = answer.get_mut(HEADER..HEADER + question.len()) {
            theirs.copy_from_slice(question);
        }
    }

    /// Whether an upstream's packet answers the query sent with this id.
    pub(crate) fn is_answered_by(&self, packet: &[u8], id: u16) -> bool {
        let Ok(answer) = Message::from_slice(packet) else { return false };
        let header = answer.header();
        let same_question = || {
            let question = answer.sole_question().ok();
            question.is_some_and(|q| {
                q.qtype() == self.rtype
                    && q.qclass() == Class::IN
                    && q.qname().to_string().trim_end_matches('.').eq_ignore_ascii_case(&self.name)
            })
        };
        header.qr() && header.id() == id && same_question()
    }
}

type Answers = AnswerBuilder<StaticCompressor<Vec<u8>>>;

/// The bit TC in the third byte of a message.
const TRUNCATED: u8 = 0x02;

/// What an upstream's answer means for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the answer, good for this many seconds (0: do not keep it).
    Good { ttl: u32 },
    /// There is more of it over TCP.
    Truncated,
    /// The server cannot tell; another may.
    Useless,
}

/// Judges an upstream's answer.
pub(crate) fn judge(packet: &[u8]) -> Verdict {
    let Ok(message) = Message::from_slice(packet) else { return Verdict::Useless };
    let header = message.header();
    if header.tc() {
        return Verdict::Truncated;
    }
    match header.rcode() {
        Rcode::NOERROR | Rcode::NXDOMAIN => {
            let mut copy = packet.to_vec();
            let mut ttl = MAX_KEPT;
            let mut answers = false;
            let walked = each_record(&mut copy, |record| {
                answers |= record.section == Section::Answer;
                // How long a "no" holds is in the zone's SOA (RFC 2308 5).
                let own = record.soa_minimum.map_or(record.ttl(), |minimum| minimum.min(record.ttl()));
                ttl = ttl.min(own);
            });
            let negative = header.rcode() == Rcode::NXDOMAIN || !answers;
            let has_soa = walked && ttl < MAX_KEPT;
            Verdict::Good { ttl: if walked && (!negative || has_soa) { ttl } else { 0 } }
        }
        // YXDOMAIN and the like are answers to what nobody asks here.
        _ => Verdict::Useless,
    }
}

/// The longest that an answer is kept, seconds.
const MAX_KEPT: u32 = 3600;

/// Takes the age off all times to live.
pub(crate) fn age(packet: &mut [u8], seconds: u32) {
    each_record(packet, |record| {
        let left = record.ttl().saturating_sub(seconds);
        record.ttl.copy_from_slice(&left.to_be_bytes());
    });
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Answer,
    Other,
}

struct Record<'a> {
    section: Section,
    ttl: &'a mut [u8],
    soa_minimum: Option<u32>,
}

impl Record<'_> {
    fn ttl(&self) -> u32 {
        self.ttl.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }
}

/// Visits all records but OPT, whose time to live is none; `false` when the packet is malformed.
fn each_record(packet: &mut [u8], mut visit: impl FnMut(&mut Record<'_>)) -> bool {
    let word = |packet: &[u8], at: usize| {
        packet.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    let mut walk = || {
        let mut at = HEADER;
        for _ in 0..word(packet, 4)? {
            at = skip_name(packet, at)? + 4;
        }
        let answers = word(packet, 6)?;
        let others = u32::from(word(packet, 8)?) + u32::from(word(packet, 10)?);
        for n in 0..u32::from(answers) + others {
            let fixed = skip_name(packet, at)?;
            let rtype = Rtype::from_int(word(packet, fixed)?);
            let end = fixed + 10 + usize::from(word(packet, fixed + 8)?);
            let last = packet.get(end.checked_sub(4)?..end)?.first_chunk::<4>().copied()?;
            if rtype != Rtype::OPT {
                let section = if n < u32::from(answers) { Section::Answer } else { Section::Other };
                let soa_minimum = (rtype == Rtype::SOA).then(|| u32::from_be_bytes(last));
                let ttl = packet.get_mut(fixed + 4..fixed + 8)?;
                visit(&mut Record { section, ttl, soa_minimum });
            }
            at = end;
        }
        Some(())
    };
    walk().is_some()
}

/// Where the name at `at` ends; `None` when it runs out of the packet.
fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += usize::from(length) + 1,
        }
    }
}

/// What the packet looks like with another id.
pub(crate) fn with_id(packet: &[u8], id: u16) -> Vec<u8> {
    let mut copy = packet.to_vec();
    if let Some(bytes) = copy.get_mut(..2) {
        bytes.copy_from_slice(&id.to_be_bytes());
    }
    copy
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A query for `name`, as a stub resolver sends it.
    pub(crate) fn query(name: &str, rtype: Rtype, udp: Option<u16>) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(0x1234);
        builder.header_mut().set_rd(true);
        let mut question = builder.question();
        question.push((Name::<Vec<u8>>::vec_from_str(name).unwrap(), rtype)).unwrap();
        let mut additional = question.additional();
        if let Some(size) = udp {
            additional
                .opt(|opt| {
                    opt.set_udp_payload_size(size);
                    Ok(())
                })
                .unwrap();
        }
        additional.finish()
    }

    fn parsed(packet: &[u8]) -> Query<'_> {
        match parse(packet) {
            Asked::Query(query) => query,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn addresses_of_the_type_asked_for() {
        let both: [IpAddr; 2] = ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        for (rtype, count) in [(Rtype::A, 1), (Rtype::AAAA, 1), (Rtype::ANY, 2), (Rtype::MX, 0)] {
            let packet = query("Web.Net", rtype, None);
            let query = parsed(&packet);
            assert_eq!(query.name, "web.net");
            let answer = query.addresses(&both);
            let answer = Message::from_slice(&answer).unwrap();
            assert_eq!(answer.header_counts().ancount(), count, "{rtype}");
            assert_eq!(answer.header().rcode(), Rcode::NOERROR);
            assert_eq!(answer.header().id(), 0x1234);
            assert_eq!(answer.sole_question().unwrap().qname().to_string(), "Web.Net");
        }
    }

    #[test]
    fn a_long_answer_asks_for_tcp_unless_the_client_takes_it() {
        let many: Vec<IpAddr> = (0..200_u8).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        let plain = query("web", Rtype::A, None);
        let answer = parsed(&plain).addresses(&many);
        assert!(answer.len() > 512, "names are compressed: {}", answer.len());
        assert!(answer.len() < 200 * 20);
        let short = parsed(&plain).fit_udp(answer.clone());
        assert!(Message::from_slice(&short).unwrap().header().tc() && short.len() < 100);
        let large = query("web", Rtype::A, Some(4096));
        let whole = parsed(&large).fit_udp(parsed(&large).addresses(&many));
        assert!(!Message::from_slice(&whole).unwrap().header().tc());
        assert!(Message::from_slice(&whole).unwrap().opt().is_some());
    }

    #[test]
    fn what_cannot_be_served_is_refused_not_dropped() {
        let mut packet = query("web", Rtype::A, None);
        packet[2] |= 0x10;
        let Asked::Refused(answer) = parse(&packet) else { panic!("opcode 2 was taken") };
        assert_eq!(Message::from_slice(&answer).unwrap().header().rcode(), Rcode::NOTIMP);
        packet[2] = 0x80;
        assert!(matches!(parse(&packet), Asked::Nonsense), "an answer was taken for a query");
        assert!(matches!(parse(b"short"), Asked::Nonsense));
        let Asked::Refused(answer) = parse(&[0, 1, 1, 0, 0, 9, 0, 0, 0, 0, 0, 0]) else { panic!() };
        assert_eq!(Message::from_slice(&answer).unwrap().header().rcode(), Rcode::FORMERR);
    }

    #[test]
    fn kept_answers_age_and_take_the_next_query_s_spelling() {
        let packet = query("example.org", Rtype::A, Some(1232));
        let first = parsed(&packet);
        let mut answer = first.addresses(&["192.0.2.1".parse().unwrap()]);
        assert_eq!(judge(&answer), Verdict::Good { ttl: 5 });
        age(&mut answer, 3);
        assert_eq!(judge(&answer), Verdict::Good { ttl: 2 });
        age(&mut answer, 100);
        assert_eq!(judge(&answer), Verdict::Good { ttl: 0 });
        let again = with_id(&query("EXAMPLE.org", Rtype::A, Some(1232)), 77);
        let again = parsed(&again);
        assert_eq!(again.cache_key(), first.cache_key());
        again.adopt(&mut answer);
        assert!(again.is_answered_by(&answer, 77));
        assert_eq!(
            Message::from_slice(&answer).unwrap().sole_question().unwrap().qname().to_string(),
            "EXAMPLE.org"
        );
        assert!(!first.is_answered_by(&answer, 0x1234));
    }

    #[test]
    fn a_no_without_soa_is_not_kept_and_errors_are_useless() {
        let packet = query("nosuch", Rtype::A, None);
        assert_eq!(judge(&parsed(&packet).nothing()), Verdict::Good { ttl: 0 });
        assert_eq!(judge(&parsed(&packet).failure()), Verdict::Useless);
    }

    #[test]
    fn no_packet_panics() {
        let answer = parsed(&query("web", Rtype::A, Some(900))).addresses(&["10.0.0.1".parse().unwrap()]);
        for cut in 0..answer.len() {
            for flip in 0..=255_u8 {
                let mut hurt = answer[..cut].to_vec();
                if let Some(byte) = hurt.last_mut() {
                    *byte ^= flip;
                }
                judge(&hurt);
                age(&mut hurt, 1);
                if let Asked::Query(query) = parse(&hurt) {
                    query.adopt(&mut hurt.clone());
                    query.nothing();
                }
            }
        }
    }
}
