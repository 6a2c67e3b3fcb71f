-- The tables of the CH-benCHmark: TPC-C's, and region, nation and supplier as in TPC-H. A stock row's supplier is
-- s_w_id * s_i_id % 10000, a customer's nation the code of the first letter of its state.

CREATE TABLE region (
  r_regionkey INT PRIMARY KEY, r_name VARCHAR NOT NULL, r_comment VARCHAR NOT NULL
);

CREATE TABLE nation (
  n_nationkey INT PRIMARY KEY, n_name VARCHAR NOT NULL, n_regionkey INT NOT NULL, n_comment VARCHAR NOT NULL
);

CREATE TABLE supplier (
  su_suppkey INT PRIMARY KEY, su_name VARCHAR NOT NULL, su_address VARCHAR NOT NULL, su_nationkey INT NOT NULL,
  su_phone VARCHAR NOT NULL, su_acctbal DECIMAL(12, 2) NOT NULL, su_comment VARCHAR NOT NULL
);

CREATE TABLE warehouse (
  w_id INT PRIMARY KEY, w_name VARCHAR NOT NULL, w_street_1 VARCHAR NOT NULL, w_street_2 VARCHAR NOT NULL,
  w_city VARCHAR NOT NULL, w_state VARCHAR NOT NULL, w_zip VARCHAR NOT NULL, w_tax DECIMAL(4, 4) NOT NULL,
  w_ytd DECIMAL(12, 2) NOT NULL
);

CREATE TABLE district (
  d_w_id INT NOT NULL, d_id INT NOT NULL, d_name VARCHAR NOT NULL, d_street_1 VARCHAR NOT NULL,
  d_street_2 VARCHAR NOT NULL, d_city VARCHAR NOT NULL, d_state VARCHAR NOT NULL, d_zip VARCHAR NOT NULL,
  d_tax DECIMAL(4, 4) NOT NULL, d_ytd DECIMAL(12, 2) NOT NULL, d_next_o_id INT NOT NULL,
  PRIMARY KEY (d_w_id, d_id)
);

CREATE TABLE customer (
  c_w_id INT NOT NULL, c_d_id INT NOT NULL, c_id INT NOT NULL, c_first VARCHAR NOT NULL, c_middle VARCHAR NOT NULL,
  c_last VARCHAR NOT NULL, c_street_1 VARCHAR NOT NULL, c_street_2 VARCHAR NOT NULL, c_city VARCHAR NOT NULL,
  c_state VARCHAR NOT NULL, c_zip VARCHAR NOT NULL, c_phone VARCHAR NOT NULL, c_since TIMESTAMP NOT NULL,
  c_credit VARCHAR NOT NULL, c_credit_lim DECIMAL(12, 2) NOT NULL, c_discount DECIMAL(4, 4) NOT NULL,
  c_balance DECIMAL(12, 2) NOT NULL, c_ytd_payment DECIMAL(12, 2) NOT NULL, c_payment_cnt INT NOT NULL,
  c_delivery_cnt INT NOT NULL, c_data VARCHAR NOT NULL,
  PRIMARY KEY (c_w_id, c_d_id, c_id)
);

CREATE TABLE history (
  h_c_w_id INT NOT NULL, h_c_d_id INT NOT NULL, h_c_id INT NOT NULL, h_w_id INT NOT NULL, h_d_id INT NOT NULL,
  h_date TIMESTAMP NOT NULL, h_amount DECIMAL(6, 2) NOT NULL, h_data VARCHAR NOT NULL
);

CREATE TABLE item (
  i_id INT PRIMARY KEY, i_im_id INT NOT NULL, i_name VARCHAR NOT NULL, i_price DECIMAL(5, 2) NOT NULL,
  i_data VARCHAR NOT NULL
);

CREATE TABLE stock (
  s_w_id INT NOT NULL, s_i_id INT NOT NULL, s_quantity INT NOT NULL, s_ytd INT NOT NULL, s_order_cnt INT NOT NULL,
  s_remote_cnt INT NOT NULL, s_dist_01 VARCHAR NOT NULL, s_dist_02 VARCHAR NOT NULL, s_dist_03 VARCHAR NOT NULL,
  s_dist_04 VARCHAR NOT NULL, s_dist_05 VARCHAR NOT NULL, s_dist_06 VARCHAR NOT NULL, s_dist_07 VARCHAR NOT NULL,
  s_dist_08 VARCHAR NOT NULL, s_dist_09 VARCHAR NOT NULL, s_dist_10 VARCHAR NOT NULL, s_data VARCHAR NOT NULL,
  PRIMARY KEY (s_w_id, s_i_id)
);

CREATE TABLE orders (
  o_w_id INT NOT NULL, o_d_id INT NOT NULL, o_id INT NOT NULL, o_c_id INT NOT NULL, o_entry_d TIMESTAMP NOT NULL,
  o_carrier_id INT, o_ol_cnt INT NOT NULL, o_all_local INT NOT NULL,
  PRIMARY KEY (o_w_id, o_d_id, o_id)
);

CREATE TABLE new_order (
  no_w_id INT NOT NULL, no_d_id INT NOT NULL, no_o_id INT NOT NULL,
  PRIMARY KEY (no_w_id, no_d_id, no_o_id)
);

CREATE TABLE order_line (
  ol_w_id INT NOT NULL, ol_d_id INT NOT NULL, ol_o_id INT NOT NULL, ol_number INT NOT NULL, ol_i_id INT NOT NULL,
  ol_supply_w_id INT NOT NULL, ol_delivery_d TIMESTAMP, ol_quantity INT NOT NULL, ol_amount DECIMAL(6, 2) NOT NULL,
  ol_dist_info VARCHAR NOT NULL,
  PRIMARY KEY (ol_w_id, ol_d_id, ol_o_id, ol_number)
);
