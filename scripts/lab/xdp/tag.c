/* Makes the cable to the balancer a trunk: what goes towards it gets a VLAN tag (IEEE 802.1Q), or two, and what comes
 * from it must have the same and loses them. Frames without are dropped. The kernel's own VLAN devices and bridge
 * filters are modules, which this machine may not have. */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

#define SECTION(name) __attribute__((section(name), used))

#define INNER 100
#define OUTER 200
#define ID 0x0fff

static long (*const vlan_push)(struct __sk_buff *skb, __be16 protocol, __u16 tci) = (void *)BPF_FUNC_skb_vlan_push;
static long (*const vlan_pop)(struct __sk_buff *skb) = (void *)BPF_FUNC_skb_vlan_pop;

static __always_inline int push(struct __sk_buff *skb, __u16 id)
{
	return vlan_push(skb, __builtin_bswap16(ETH_P_8021Q), id);
}

/* Takes one tag off; not zero where it is not there. */
static __always_inline int pop(struct __sk_buff *skb, __u16 id)
{
	if (!skb->vlan_present || (skb->vlan_tci & ID) != id)
		return 1;
	return vlan_pop(skb);
}

SECTION("tag1")
int tag_once(struct __sk_buff *skb)
{
	return push(skb, INNER) ? TC_ACT_SHOT : TC_ACT_OK;
}

SECTION("untag1")
int untag_once(struct __sk_buff *skb)
{
	return pop(skb, INNER) || skb->vlan_present ? TC_ACT_SHOT : TC_ACT_OK;
}

SECTION("tag2")
int tag_twice(struct __sk_buff *skb)
{
	return push(skb, INNER) || push(skb, OUTER) ? TC_ACT_SHOT : TC_ACT_OK;
}

SECTION("untag2")
int untag_twice(struct __sk_buff *skb)
{
	return pop(skb, OUTER) || pop(skb, INNER) || skb->vlan_present ? TC_ACT_SHOT : TC_ACT_OK;
}

char licence[] SECTION("license") = "Apache-2.0";
