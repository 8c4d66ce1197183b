"""Words for items: what each category is called, sold as, made of and used for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Category:
    """A category's nouns, qualities and uses, its median price, and who buys from it."""

    name: str
    nouns: tuple[str, ...]
    qualities: tuple[str, ...]
    uses: tuple[str, ...]
    price: float
    industries: tuple[str, ...]


# name | median price | industries | nouns | qualities | uses
_CATEGORIES = """
Programming Books | 38 | Software | Rust Handbook, Systems Reader, SQL Cookbook, Testing Guide | practical, second-edition, annotated, illustrated | learning by example, code reviews, interview preparation
Computers | 900 | Software, Media | Laptop, Mini PC, Mechanical Keyboard, Monitor | silent, lightweight, refurbished, 4K | long days of work, video calls, travel
Audio | 140 | Media, Software | Headphones, Studio Microphone, Turntable, Speaker | wireless, noise-cancelling, vintage, compact | podcasts, late listening, mixing
Cameras | 520 | Media | Mirrorless Camera, Prime Lens, Tripod, Light Meter | weather-sealed, carbon, manual, pocket | street photography, portraits, interviews
Investing Books | 30 | Finance, Law | Valuation Primer, Market History, Tax Guide, Bond Workbook | concise, updated, independent, pocket | exam revision, long-term planning, small investors
Office | 75 | Finance, Law, Education | Standing Desk, Notebook, Fountain Pen, Desk Lamp | oak, recycled, adjustable, dot-grid | clear thinking, long meetings, a tidy room
Fitness | 60 | Healthcare, Education | Yoga Mat, Kettlebell, Running Belt, Foam Roller | non-slip, adjustable, travel-size, cork | morning practice, recovery, small flats
Nutrition | 24 | Healthcare, Agriculture | Oat Bars, Herbal Tea, Protein Powder, Dried Mango | organic, unsweetened, fair-trade, vegan | early shifts, long hikes, breakfast on the go
Medical Books | 65 | Healthcare | Anatomy Atlas, Nursing Companion, Pharmacology Cards, Triage Manual | colour, pocket, peer-reviewed, laminated | night shifts, students, quick reference
Children's Books | 16 | Education, Media | Picture Book, Atlas for Children, Bedtime Stories, Puzzle Book | bilingual, hardback, award-winning, hand-drawn | reading aloud, rainy days, first readers
Board Games | 42 | Education, Software | Strategy Game, Card Game, Dice Set, Co-operative Game | quick, wooden, two-player, family | long evenings, train rides, large groups
Art Supplies | 28 | Media, Education | Watercolour Set, Sketchbook, Brush Pens, Linocut Kit | professional, refillable, starter, cold-pressed | urban sketching, workshops, illustration
Hand Tools | 55 | Manufacturing, Construction | Torque Wrench, Chisel Set, Digital Caliper, Socket Set | forged, calibrated, insulated, heavy-duty | precise work, restoration, the workshop
Power Tools | 180 | Construction, Manufacturing | Cordless Drill, Circular Saw, Laser Level, Sander | brushless, compact, dust-free, 18-volt | site work, renovation, fine finishing
Workwear | 70 | Construction, Manufacturing, Agriculture | Safety Boots, Work Jacket, Gloves, Rain Trousers | waterproof, reinforced, high-visibility, insulated | cold mornings, wet fields, long standing
Home Décor | 48 | Construction, Retail | Ceramic Vase, Wool Blanket, Wall Print, Linen Curtain | handmade, minimalist, woven, indigo | small rooms, quiet corners, guest rooms
Fashion | 65 | Retail, Media | Linen Shirt, Wool Coat, Silk Scarf, Leather Belt | tailored, oversized, second-hand, striped | spring, the office, evenings out
Beauty | 26 | Retail, Healthcare | Face Serum, Shea Butter, Solid Shampoo, Perfume Oil | unscented, natural, refillable, gentle | dry skin, sensitive skin, travel
Kitchen | 58 | Hospitality | Chef's Knife, Cast Iron Pan, Stand Mixer, Bamboo Steamer | carbon-steel, hand-forged, seasoned, stackable | batch cooking, baking bread, weeknight dinners
Food and Wine | 34 | Hospitality, Agriculture | Olive Oil, Red Wine, Coffee Beans, Aged Cheese | single-estate, smoked, small-batch, natural | shared tables, gifts, slow mornings
Outdoor | 110 | Energy, Agriculture | Tent, Hiking Pack, Camping Stove, Sleeping Bag | ultralight, four-season, two-person, packable | mountain weekends, cycle touring, rain
Solar and Power | 240 | Energy, Construction | Solar Panel, Power Station, Battery Pack, Charge Controller | foldable, portable, lithium, rugged | off-grid cabins, field work, blackouts
Law Books | 80 | Law, Finance | Contract Casebook, Mediation Guide, Copyright Handbook, Drafting Manual | annotated, student, comparative, revised | first-year students, daily practice, negotiation
Garden | 32 | Agriculture, Hospitality | Seed Box, Pruning Shears, Compost Bin, Beekeeping Veil | heirloom, galvanised, ergonomic, balcony | small gardens, pollinators, raised beds
"""


def _category(row: str) -> Category:
    name, price, *lists = row.split(" | ")
    industries, nouns, qualities, uses = (tuple(text.split(", ")) for text in lists)
    return Category(name, nouns, qualities, uses, float(price), industries)


CATEGORIES = tuple(map(_category, _CATEGORIES.strip().splitlines()))
SERIES = tuple(
    "Alder Birch Cobalt Delta Ember Fjord Grove Heron Iris Jade Koru Lumen Maple Nimbus Opal Pine "
    "Quill Ridge Slate Tide".split()
)
REGIONS = ("africa", "americas", "asia", "europe", "oceania")
