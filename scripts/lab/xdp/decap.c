/* Takes the outer header off packets that the balancer tunnelled to this backend: IPv4 (protocol 4, RFC 2003) and
 * IPv6 (protocol 41, RFC 2473) behind an IP header, or behind UDP to port 6080 and the four bytes of GUE variant 0
 * (draft-ietf-intarea-gue), in any mix of families. Everything else passes untouched. A backend in production uses
 * the kernel's own ipip, sit, ip6_tunnel and fou modules; this program stands in where the kernel has none.
 *
 * Outer IPv4 options, IPv6 extension headers, GUE's optional fields and its control messages are not looked behind:
 * the balancer writes none. A checksum in the outer UDP header is not verified. */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#define SECTION(name) __attribute__((section(name), used))

#define PROTOCOL_IPV4 4
#define PROTOCOL_UDP 17
#define PROTOCOL_IPV6 41
#define GUE_PORT 6080

struct gue {
	__u8 variant_control_length;
	__u8 protocol;
	__u16 flags;
};

static long (*const adjust_head)(struct xdp_md *context, int delta) = (void *)BPF_FUNC_xdp_adjust_head;

static __always_inline __u16 network_order(__u16 host)
{
	return __builtin_bswap16(host);
}

/* The Ethernet type of the packet inside, 0 where there is none. */
static __always_inline __u16 inner_type(__u8 protocol)
{
	if (protocol == PROTOCOL_IPV4)
		return network_order(ETH_P_IP);
	if (protocol == PROTOCOL_IPV6)
		return network_order(ETH_P_IPV6);
	return 0;
}

SECTION("xdp")
int decap(struct xdp_md *context)
{
	void *data = (void *)(long)context->data;
	void *end = (void *)(long)context->data_end;
	struct ethhdr *frame = data;
	struct ethhdr kept;
	void *payload;
	__u8 protocol;
	__u16 type;
	int outer;

	if (data + sizeof(*frame) + sizeof(struct iphdr) > end)
		return XDP_PASS;
	payload = data + sizeof(*frame);
	if (frame->h_proto == network_order(ETH_P_IP)) {
		struct iphdr *header = payload;

		/* A fragment's payload may be anything. */
		if (header->ihl != 5 || header->frag_off & network_order(0x3fff))
			return XDP_PASS;
		protocol = header->protocol;
		outer = sizeof(*header);
	} else if (frame->h_proto == network_order(ETH_P_IPV6)) {
		struct ipv6hdr *header = payload;

		if ((void *)(header + 1) > end)
			return XDP_PASS;
		protocol = header->nexthdr;
		outer = sizeof(*header);
	} else {
		return XDP_PASS;
	}
	if (protocol == PROTOCOL_UDP) {
		struct udphdr *datagram = payload + outer;
		struct gue *gue = (void *)(datagram + 1);

		if ((void *)(gue + 1) > end || datagram->dest != network_order(GUE_PORT))
			return XDP_PASS;
		if (gue->variant_control_length || gue->flags)
			return XDP_PASS;
		protocol = gue->protocol;
		outer += sizeof(*datagram) + sizeof(*gue);
	}
	type = inner_type(protocol);
	if (!type)
		return XDP_PASS;

	__builtin_memcpy(&kept, frame, sizeof(kept));
	kept.h_proto = type;
	if (adjust_head(context, outer))
		return XDP_DROP;
	data = (void *)(long)context->data;
	end = (void *)(long)context->data_end;
	if (data + sizeof(kept) > end)
		return XDP_DROP;
	__builtin_memcpy(data, &kept, sizeof(kept));
	return XDP_PASS;
}

char licence[] SECTION("license") = "Apache-2.0";
