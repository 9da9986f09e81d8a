"""What pretended customers are called: a first word, a second, a legal form."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


FIRST = _words(
    "Adventure, Alpine, Amber, Anchor, Arbor, Atlas, Aurora, Baldwin, Bayside, Beacon, Birch, Blue Yonder, Boulder, "
    "Bright, Cedar, Cobalt, Copper, Coral, Crescent, Delta, Eastgate, Echo, Elm Street, Ember, Evergreen, Falcon, "
    "First Up, Fourth Coffee, Garnet, Granite, Graphic, Harbour, Hazel, Heron, Highland, Humongous, Iris, Ivory, "
    "Juniper, Keystone, Lakeshore, Lamna, Lantern, Liberty, Lucerne, Maple, Margie's, Meadow, Meridian, Midtown, "
    "Munson's, Nordic, Northgate, Oak & Elm, Olive, Orchard, Osprey, Parnell, Pine Valley, Pioneer, Prism, "
    "Proseware, Quarry, Relecloud, Ridge, River, Sable, School of, Sierra, Silver, Southridge, Spruce, Sterling, "
    "Summit, Tailspin, Tamarack, Terra, Trey, Union, Valley, VanArsdel, Vertex, Vigor, Walnut, Westside, Wide "
    "World, Willow, Wingtip, Woodgrove, Zephyr"
)
SECOND = _words(
    "Accounting, Analytics, Architects, Bakery, Bank, Biotech, Brewing, Builders, Capital, Catering, Chemicals, "
    "Clinics, Construction, Consulting, Couriers, Dental, Design, Dynamics, Education, Electric, Energy, "
    "Engineering, Events, Farms, Fashion, Finance, Fine Art, Foods, Freight, Furniture, Gardens, Glass, Health, "
    "Holdings, Hotels, Importers, Insurance, Interiors, Investments, Labs, Legal, Logistics, Machines, Marine, "
    "Media, Medical, Metals, Motors, Museum, Networks, Optics, Outfitters, Packaging, Partners, Pharma, Plastics, "
    "Press, Print, Properties, Publishing, Recruitment, Recycling, Research, Resorts, Retail, Robotics, Securities, "
    "Services, Shipping, Software, Solar, Sports, Studios, Supplies, Systems, Telecom, Textiles, Tools, Toys, "
    "Traders, Transport, Travel, Ventures, Water, Wines, Works"
)
FORM = ("Ltd", "GmbH", "Inc.", "AB", "B.V.", "S.A.", "Group", "& Co.", "Oy", "LLC", "ApS", "plc")
