INSERT INTO movies (id, place, minutes, title, tagline, title_zh, tagline_zh) VALUES
    ('spiral', 1, 118, 'The Long Spiral', 'A lighthouse keeper climbs stairs that do not end.', '漫长的螺旋', '守塔人在没有尽头的楼梯上越走越高。'),
    ('tidewater', 2, 94, 'Tidewater', 'Two sisters, one ferry, the last night of summer.', '潮水', '两姐妹，一条渡船，夏天的最后一夜。'),
    ('paper', 3, 107, 'Paper Orbit', 'A postman with one letter left, for a space station.', '纸轨道', '邮差手里只剩一封信，收件地址是太空站。'),
    ('north', 4, 131, 'Night Train North', 'Everybody on board has bought the same seat.', '北上夜车', '全车人买到的，是同一个座位。'),
    ('map', 5, 89, 'The Mapmaker', 'Club preview: open to everyone who holds a ticket of this house.', '绘图师', '会员点映：凡在本院买过票的观众均可入场。');
