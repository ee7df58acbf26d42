/* Takes the outer header off packets that the balancer tunnelled to this backend: IPv4 (protocol 4, RFC 2003) and
 * IPv6 (protocol 41, RFC 2473), in any mix. Everything else passes untouched. A backend in production uses the
 * kernel's own ipip or ip6tnl module; this program stands in where the kernel has no modules.
 *
 * Outer IPv4 options and IPv6 extension headers are not looked behind: the balancer writes none. */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#define SECTION(name) __attribute__((section(name), used))

static long (*const adjust_head)(struct xdp_md *context, int delta) = (void *)BPF_FUNC_xdp_adjust_head;

static __always_inline __u16 network_order(__u16 host)
{
	return __builtin_bswap16(host);
}

/* The Ethernet type of the packet inside, 0 where there is none. */
static __always_inline __u16 inner_type(__u8 protocol)
{
	if (protocol == 4)
		return network_order(ETH_P_IP);
	if (protocol == 41)
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
	__u16 type = 0;
	int outer = 0;

	if (data + sizeof(*frame) + sizeof(struct iphdr) > end)
		return XDP_PASS;
	if (frame->h_proto == network_order(ETH_P_IP)) {
		struct iphdr *header = data + sizeof(*frame);

		if (header->ihl != 5)
			return XDP_PASS;
		type = inner_type(header->protocol);
		outer = sizeof(*header);
	} else if (frame->h_proto == network_order(ETH_P_IPV6)) {
		struct ipv6hdr *header = data + sizeof(*frame);

		if ((void *)(header + 1) > end)
			return XDP_PASS;
		type = inner_type(header->nexthdr);
		outer = sizeof(*header);
	}
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
