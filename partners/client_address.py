"""Where a visitor comes from, behind our own proxies."""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.http import HttpRequest


def address_of(request: HttpRequest) -> str | None:
    """
    The visitor's address; of an IPv6 address its network, of which one customer has a whole. None when nobody says.

    `X-Forwarded-For` counts as far as our own proxies wrote it (`CPV_TRUSTED_PROXIES`): each adds whom it heard from at
    the end, so whatever a visitor writes there stands further to the left.
    """
    trusted = settings.CPV_TRUSTED_PROXIES
    heard = [part.strip() for part in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
    by_proxy = heard[-trusted] if 0 < trusted <= len(heard) else ""
    for text in (by_proxy, request.META.get("REMOTE_ADDR", "")):
        try:
            address = ipaddress.ip_address(_without_port(text))
        except ValueError:
            continue
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            return str(address.ipv4_mapped)
        if isinstance(address, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((address, 64), strict=False).network_address)
        return str(address)
    return None


def network_of(address: str) -> str:
    """What is often one visitor's as a whole: the /24 around an IPv4 address, the /48 around an IPv6 one."""
    bits = 24 if ipaddress.ip_address(address).version == 4 else 48
    return str(ipaddress.ip_network((address, bits), strict=False))


def _without_port(text: str) -> str:
    """Some proxies write the port, too: 192.0.2.1:4711, [2001:db8::1]:4711."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
