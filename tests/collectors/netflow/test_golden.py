"""Real exporters' datagrams against what others read from them, field by field."""

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
from scapy.layers.netflow import NetflowV910TemplateFieldTypes

from collectors.app import sampled_frames
from collectors.netflow import elements
from collectors.netflow.readers import TIMES
from collectors.netflow.records import DecodeError, State, decode, records
from collectors.netflow.values import rfc3339

# Names of Cisco's v9 document to element numbers; and what logstash calls otherwise.
NUMBERS = {name.lower(): number for number, name in NetflowV910TemplateFieldTypes.items()}
NUMBERS |= {
    "ipv4_src_addr": 8, "ipv4_dst_addr": 12, "input_snmp": 10, "output_snmp": 14, "in_bytes": 1, "in_pkts": 2,
    "l4_src_port": 7, "l4_dst_port": 11, "src_tos": 5, "protocol": 4, "src_mask": 9, "dst_mask": 13,
    "ipv4_next_hop": 15, "first_switched": 22, "last_switched": 21, "ip_protocol_version": 60,
    "ipv6_src_addr": 27, "ipv6_dst_addr": 28, "ipv6_src_mask": 29, "ipv6_dst_mask": 30, "ipv6_next_hop": 62,
    "ipv6_flow_label": 31, "icmp_type": 176,  "flow_end_reason": 136,
    "bgp_ipv4_next_hop": 18, "direction": 61, "in_src_mac": 56,
    "in_dst_mac": 80, "out_src_mac": 81, "out_dst_mac": 57, "src_vlan": 58, "dst_vlan": 59,
    "application_id": 95, "forwarding_status": 89, "flow_sampler_id": 48, "app_id": 56701, "user_id": 56702,
    "conn_id": 148, "fwd_flow_delta_bytes": 231, "rev_flow_delta_bytes": 232, "icmp_type_code": 32,
    "xlate_src_addr_ipv4": 225, "xlate_dst_addr_ipv4": 226, "xlate_src_port": 227, "xlate_dst_port": 228,
    "fw_event": 233, "fw_ext_event": 33002, "event_time_msec": 323, "ingress_acl_id": 33000,
    "egress_acl_id": 33001, "username": 40000, "flow_start_msec": 152, "icmp_code_ipv4": 177,
    "icmp_type_ipv4": 176, "ingress_vrfid": 234, "egress_vrfid": 235, "total_flows_exp": 42,
    "total_pkts_exp": 41, "total_bytes_exp": 40, "src_as": 16, "dst_as": 17, "tcp_flags": 6,
    "postNATSourceTransportPort": 227, "postNATDestinationTransportPort": 228, "wlanSSID": 147,
    "app_desc": 94, "application_name": 96, "sampling_interval": 34, "ipv4_ident": 54,
    "post_nat_src_ipv4_addr": 225, "post_nat_dst_ipv4_addr": 226, "ip_dscp": 195, "icmp_code": 177,
    "privateEnterpriseNumber": 346, "ipv4_src_prefix": 44, "ipv4_dst_prefix": 45,
}  # fmt: skip
# Of the header, or logstash's own.
HEADER = {
    "version",
    "flow_seq_num",
    "flowset_id",
    "flow_records",
    "engine_type",
    "engine_id",
    "sampling_algorithm",
}
SWITCHED = {"first_switched": "flowStartSysUpTime", "last_switched": "flowEndSysUpTime"}
NAMED = {"scope_system": "scopeSystem", "netscalerUnknown330": None}


def name_of(key):
    if key in NAMED:
        return NAMED[key]
    if key in NUMBERS:
        return elements.element(0, NUMBERS[key]).name
    return key


def application(raw):
    """logstash's form: engine..selector, or engine..PEN..selector for engine 20 (RFC 6759)."""
    data = bytes.fromhex(raw)
    parts = [data[:1], data[1:5], data[5:]] if data[0] == 20 else [data[:1], data[1:]]
    return "..".join(str(int.from_bytes(p, "big")) for p in parts)


def same(key, told, row, message):
    name = name_of(key)
    if key == "icmp_type" and "icmpTypeCodeIPv4" in row:
        return row["icmpTypeCodeIPv4"] >> 8 == told  # both in one field, by Cisco's name
    assert name in row, (key, name, row)
    got = row[name]
    if key in SWITCHED and isinstance(told, str):
        # Milliseconds modulo 2**32, because logstash does not know the wrap.
        want = datetime.strptime(told, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp() * 1000
        boot = message.export_ns / 1_000_000 - message.uptime_ms
        off = (want - boot - got + 2**31) % 2**32 - 2**31
        derived = row[TIMES[name]]
        assert derived == rfc3339(message.clock.at(got) * 1_000_000, 3)
        # logstash forgets to borrow a second where its milliseconds go below zero, and reads v5's first time
        # of -1, which is a millisecond before the start, as one that is 49 days ahead.
        return got == 2**32 - 1 or min(abs(off - second) for second in (-1000, 0, 1000)) <= 1.01
    if key == "forwarding_status":
        return got == told["status"] << 6 | told["reason"]
    if key == "application_id":
        return application(got) == told
    if isinstance(got, str) and re.match(r"\d{4}-.*Z$", got):
        if isinstance(told, int):
            return abs(datetime.fromisoformat(got).timestamp() * (1000 if told > 10**11 else 1) - told) < 1
        return got.rstrip("Z").startswith(told.rstrip("Z")) or told.rstrip("0Z.").startswith(
            got.rstrip("0Z.")
        )
    if isinstance(told, str) and isinstance(got, str):
        return told.rstrip("\0") == got
    if isinstance(told, list) or isinstance(got, list):
        return list(told) == list(got)
    return str(got) == str(told)


def value_of(text):
    """A field check's value is Ruby: a number, or a string in quotes of either kind."""
    return text.strip("\"'") if text[:1] in "\"'" else int(text)


def read_all(path, make):
    """[(record, its message)] with the capture replayed as one exporter."""
    state, found = State(), []
    for one in make.datagrams(path, make.EXPORTER):
        try:
            got = records(one.payload, state, one.exporter, one.t_ns)
        except DecodeError:
            continue
        found += [(row, decode(one.payload)) for row in got]
    return found


def names(captures_):
    return sorted(p.stem for p in captures_.glob("logstash-codec-netflow/golden/*.json"))


def test_every_golden_event_has_our_values(captures, make):
    checked = 0
    for name in names(captures):
        folder = captures / "logstash-codec-netflow"
        golden = json.loads((folder / f"golden/{name}.json").read_text())
        found = read_all(folder / f"{name}.pcap", make)
        if "netscaler" in name:
            # Data came before its templates: logstash drops it, we hold it; then all comes again.
            assert len(found) == 2 * golden["expected_events"]
            found = found[golden["expected_events"] :]
        elif golden["expected_events"] is not None:
            assert len(found) == golden["expected_events"], name
        for index, event in golden["event_index_to_json"]:
            row, message = found[index]
            for key, told in golden["events"][event]["netflow"].items():
                if key not in HEADER and name_of(key) is not None:
                    assert same(key, told, row, message), (name, index, key, told, row[name_of(key)])
                    checked += 1
        for check in golden["field_checks"]:
            key = check["path"].rpartition("[")[2].rstrip("]")
            if key in HEADER or "#{" in check["value"]:
                continue
            row, message = found[check["index"]]
            assert same(key, value_of(check["value"]), row, message), (name, check, row[name_of(key)])
            checked += 1
    assert checked > 400


def telegraf(path):
    """Lines of InfluxDB's protocol as dicts of text, quotes and the u of unsigned taken off."""
    for line in path.read_text().splitlines():
        fields = re.findall(r'(?:^|,| )(\w+)=("[^"]*"|[^, ]*)', line)
        yield {k: v.strip('"').removesuffix("u") if v[:1] != '"' else v.strip('"') for k, v in fields}


# What telegraf calls elements, as far as it gives their plain value.  It reads v9's scope 1, the system, as
# element 1.
TELEGRAF = {
    "src": ("sourceIPv4Address", "sourceIPv6Address"),
    "dst": ("destinationIPv4Address", "destinationIPv6Address"),
    "src_port": ("sourceTransportPort",), "dst_port": ("destinationTransportPort",),
    "in_bytes": ("octetDeltaCount", "scopeSystem"), "in_packets": ("packetDeltaCount",),
    "in_total_bytes": ("octetTotalCount",),
    "in_total_packets": ("packetTotalCount",), "bgp_src_as": ("bgpSourceAsNumber",),
    "bgp_dst_as": ("bgpDestinationAsNumber",), "in_snmp": ("ingressInterface",),
    "out_snmp": ("egressInterface",),
    "first_switched": ("flowStartSysUpTime",), "last_switched": ("flowEndSysUpTime",),
    "flows": ("deltaFlowCount",), "interface": ("interfaceName",),
    "interface_desc": ("interfaceDescription",),
    "in_src_mac": ("sourceMacAddress",), "sampling_interval": ("samplingInterval",),
}  # fmt: skip


def test_every_record_that_telegraf_reads_is_read_alike(captures, make):
    compared = 0
    for expected in sorted(captures.glob("telegraf/*/expected.out")):
        if "sflow" in str(expected):
            continue
        found = [row for row, _ in read_all(expected.with_name("all.pcap"), make)]
        lines = list(telegraf(expected))
        for line in lines:
            wanted = {k: v for k, v in line.items() if k in TELEGRAF}
            if line["version"] == "NetFlowV5":
                del wanted["flows"]  # there it is the header's count
            alike = [
                row
                for row in found
                if all(any(_alike(row.get(n), told) for n in TELEGRAF[k]) for k, told in wanted.items())
            ]
            assert alike, (expected, line)
            compared += 1
        # Options without data, and records of other templates in its capture, telegraf leaves out.
        assert len(found) >= len(lines)
    assert compared > 40


def _alike(got, told):
    # telegraf cuts v9's interface names at their zeros, as we do; IPv6 text may be written otherwise.
    if ":" in told and got is not None and ":" in str(got) and "." not in told:
        try:
            return ip_address(str(got)) == ip_address(told)
        except ValueError:
            return str(got) == told
    return str(got) == told


def test_ipfixcol2_reads_as_many_records_of_as_many_messages(captures, make):
    path = captures / "ipfixcol2/example_flows.ipfix.pcap"
    assert len(make.datagrams(path)) == 68
    assert len(make.replay([make.datagrams(path)]).rows) == 3979
    assert len(read_all(path, make)) == 3979


# What telegraf calls what sFlow says, as far as it is the plain value.
SAMPLED = {
    "agent_ip": "sFlowAgentIPv4Address", "agent_subid": "sFlowSubAgentId",
    "sys_uptime": "sFlowUptimeMilliseconds",
    "dst": ("destinationIPv4Address", "destinationIPv6Address"), "dst_port": "destinationTransportPort",
    "src": ("sourceIPv4Address", "sourceIPv6Address"), "src_port": "sourceTransportPort",
    "in_src_mac": "sourceMacAddress", "out_dst_mac": "destinationMacAddress",
    "in_total_packets": "sFlowSamplePool", "sampling_drops": "sFlowDrops",
    "sampling_interval": "samplingInterval", "seq_number": "sFlowSampleSequenceNumber",
    "vlan_src": "vlanId", "vlan_dst": "postVlanId", "vlan_src_priority": "dot1qPriority",
    "vlan_dst_priority": "sFlowPostPriority", "ipv4_total_len": "octetDeltaCount",
    "interface": "ifIndex", "interface_type": "ifType", "speed": "ifSpeed", "port_name": "interfaceName",
    "in_bytes": "ifInOctets", "in_unicast_packets_total": "ifInUcastPkts",
    "in_mcast_packets_total": "ifInMulticastPkts", "in_broadcast_packets_total": "ifInBroadcastPkts",
    "in_dropped_packets": "ifInDiscards", "in_errors": "ifInErrors",
    "in_unknown_protocol": "ifInUnknownProtos",
    "out_bytes": "ifOutOctets", "out_unicast_packets_total": "ifOutUcastPkts",
    "out_mcast_packets_total": "ifOutMulticastPkts", "out_broadcast_packets_total": "ifOutBroadcastPkts",
    "out_dropped_packets": "ifOutDiscards", "out_errors": "ifOutErrors", "promiscuous": "ifPromiscuousMode",
    "collision_frames_single": "dot3StatsSingleCollisionFrames",
    "collision_frames_multi": "dot3StatsMultipleCollisionFrames",
    "collisions_late": "dot3StatsLateCollisions",
    "collisions_excessive": "dot3StatsExcessiveCollisions", "deferred": "dot3StatsDeferredTransmissions",
    "errors_alignment": "dot3StatsAlignmentErrors", "errors_fcs": "dot3StatsFCSErrors",
    "errors_carrier_sense": "dot3StatsCarrierSenseErrors", "errors_sqetest": "dot3StatsSQETestErrors",
    "errors_frame_too_long": "dot3StatsFrameTooLongs", "errors_symbols": "dot3StatsSymbolErrors",
    "errors_internal_mac_rx": "dot3StatsInternalMacReceiveErrors",
    "errors_internal_mac_tx": "dot3StatsInternalMacTransmitErrors",
}  # fmt: skip
# Of fields that need a sentence: telegraf's own words, or another place.
_WORDS = {"direction": ("flowDirection", {"ingress": 0, "egress": 1})}


def test_every_sflow_sample_that_telegraf_reads_is_read_alike(captures, make):
    compared = 0
    for expected in sorted(captures.glob("telegraf/sflow*/expected.out")):
        state = State(frames=sampled_frames)
        found = [
            row
            for one in make.datagrams(expected.with_name("all.pcap"))
            for row in records(one.payload, state, one.exporter, one.t_ns)
        ]
        lines = list(telegraf(expected))
        assert len(found) == len(lines)
        in_order = sorted_by_sequence(found, "sFlowSampleSequenceNumber")
        for line, row in zip(sorted_by_sequence(lines, "seq_number"), in_order, strict=True):
            for key, told in line.items():
                named = SAMPLED.get(key)
                if named is None:
                    continue
                one = [row[n] for n in ([named] if isinstance(named, str) else named) if n in row]
                if key in ("in_bytes", "out_bytes", "ipv4_total_len") or one:
                    assert str(one[0]) == told, (key, told, row)
                    compared += 1
                else:
                    pytest.fail(f"{key} of {line} is not in {row}")
            # Telegraf's in_snmp is the source of a sample, or the interface that it came in by.
            if "in_snmp" in line and "ingressInterface" in row:
                assert line["in_snmp"] in (str(row["ingressInterface"]), str(row["sFlowSourceIdIndex"]))
            if "direction" in line and "flowDirection" in row:
                assert _WORDS["direction"][1][line["direction"]] == row["flowDirection"]
    assert compared > 100


def sorted_by_sequence(rows, key):
    return sorted(rows, key=lambda row: int(row[key]))


def test_every_sampled_packet_of_the_captures_is_a_row(captures, make):
    """tshark (4.0.17) finds six flow samples in one, one in another, and nothing but a start in the third."""
    counts = {"telegraf/sflow_issue_15918/all": 6, "telegraf/sflow_v5_example/all": 0,
              "tcpdump/sflow_expanded": 1, "tcpdump/sflow_print-segv": 0}  # fmt: skip
    for name, count in counts.items():
        got = make.replay([make.datagrams(captures / f"{name}.pcap")], frames=sampled_frames)
        assert len(got.rows) == count, name


@pytest.mark.tools
def test_sflow_counts_are_tsharks(captures, make):
    if shutil.which("tshark") is None:
        pytest.skip("no tshark here")
    for path in sorted(p for p in captures.rglob("*.pcap") if "sflow" in str(p)):
        told = subprocess.run(
            ["tshark", "-r", path, "-d", "udp.port==6343,sflow", "-V"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        got = make.replay([make.datagrams(path)], frames=sampled_frames).moved
        kinds = {
            "flow": r"^ +(?:Expanded f|F)low sample, seq",
            "counter": r"^ +(?:Expanded c|C)ounters sample, seq",
        }
        for kind, pattern in kinds.items():
            assert got.get(("sflow_samples_total", kind), 0) == len(re.findall(pattern, told, re.M)), (
                path.name
            )


@pytest.mark.tools
def test_counts_are_tsharks(captures, make):
    if shutil.which("tshark") is None:
        pytest.skip("no tshark here")
    for path in sorted(captures.glob("graylog-plugin-netflow/*.pcap")):
        ports = {p[3] for p in make.udp_payloads(path)}
        decode_as = [x for port in ports for x in ("-d", f"udp.port=={port},cflow")]
        told = subprocess.run(
            ["tshark", "-r", path, *decode_as, "-V"], capture_output=True, text=True, check=True
        ).stdout
        counted = len(re.findall(r"^ +(?:Flow \d+|pdu \d+/\d+)", told, re.M))
        # Its header counts two, which are templates; tshark stops there, and two records follow.
        counted += 2 * (path.name == "v9_1.dat.pcap")
        assert len(read_all(path, make)) == counted, path.name
