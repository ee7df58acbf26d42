/* Makes a client ignore flag C: clears it in the MP_CAPABLE option of every SYN/ACK that comes in (RFC 8684 section
 * 3.1), so that the client joins the address it connected to although the server asked it not to. No HMAC covers the
 * flag; the TCP checksum does. */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>

#define SECTION(name) __attribute__((section(name), used))

#define IPV6_LEN 40
#define TCP_LEN 20
#define TCP_FLAGS 13
#define TCP_CHECKSUM 16
#define SYN_ACK 0x12
#define OPTIONS_MAX 40
#define MPTCP 30
#define CAPABLE_LEN 12
#define FLAG_C 0x20

static long (*const load)(const void *skb, __u32 offset, void *to, __u32 len) = (void *)BPF_FUNC_skb_load_bytes;
static long (*const store)(struct __sk_buff *skb, __u32 offset, const void *from, __u32 len, __u64 flags) =
	(void *)BPF_FUNC_skb_store_bytes;
static long (*const checksum)(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags) =
	(void *)BPF_FUNC_l4_csum_replace;

/* Where the TCP header begins; 0 where there is none. */
static __always_inline __u32 transport(struct __sk_buff *skb)
{
	__u8 first = 0, protocol = 0;

	if (skb->protocol == __builtin_bswap16(ETH_P_IP)) {
		if (load(skb, ETH_HLEN, &first, 1) || load(skb, ETH_HLEN + 9, &protocol, 1))
			return 0;
		return protocol == IPPROTO_TCP ? ETH_HLEN + (first & 0x0f) * 4 : 0;
	}
	if (skb->protocol == __builtin_bswap16(ETH_P_IPV6)) {
		if (load(skb, ETH_HLEN + 6, &protocol, 1))
			return 0;
		return protocol == IPPROTO_TCP ? ETH_HLEN + IPV6_LEN : 0;
	}
	return 0;
}

/* Clears the flag in the option at this place. The checksum goes by words of 16 bits, counted from the TCP header. */
static __always_inline void clear(struct __sk_buff *skb, __u32 tcp, __u32 option)
{
	__u8 flags = 0, cleared;

	if (load(skb, option + 3, &flags, 1) || !(flags & FLAG_C))
		return;
	cleared = flags & ~FLAG_C;
	/* A byte at an odd offset is the low half of its word. */
	if ((option + 3 - tcp) & 1)
		checksum(skb, tcp + TCP_CHECKSUM, __builtin_bswap16(flags), __builtin_bswap16(cleared), 2);
	else
		checksum(skb, tcp + TCP_CHECKSUM, __builtin_bswap16(flags << 8), __builtin_bswap16(cleared << 8), 2);
	store(skb, option + 3, &cleared, 1, 0);
}

SECTION("unflag")
int ignore_flag(struct __sk_buff *skb)
{
	__u32 tcp = transport(skb), at;
	__u8 flags = 0, head[3];

	if (!tcp || load(skb, tcp + TCP_FLAGS, &flags, 1) || (flags & 0x17) != SYN_ACK)
		return TC_ACT_OK;
	at = tcp + TCP_LEN;
	for (int step = 0; step < OPTIONS_MAX; step++) {
		if (load(skb, at, head, 1) || head[0] == 0)
			return TC_ACT_OK;
		if (head[0] == 1) {
			at++;
			continue;
		}
		if (load(skb, at, head, 3) || head[1] < 2)
			return TC_ACT_OK;
		if (head[0] == MPTCP && head[1] == CAPABLE_LEN && head[2] >> 4 == 0) {
			clear(skb, tcp, at);
			return TC_ACT_OK;
		}
		at += head[1];
	}
	return TC_ACT_OK;
}

char licence[] SECTION("license") = "Apache-2.0";
